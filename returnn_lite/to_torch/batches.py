"""Random batches on which a network is recorded and checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import torch

from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.network.network import Network
from returnn_lite.tensor import Dim

# (sequences, frames) that are recorded: of unlike rests after division by 3, many of rest 1 after one by 8, where each
# of several poolings by 2 pads, and numbers of sequences that no size of the frames follows.
BATCHES = ((2, 23), (3, 38), (2, 60), (2, 49), (3, 41), (2, 65), (3, 33), (3, 73))
CHECKED = ((4, 31), (1, 17), (3, 40), (2, 37))  # that are compared
LONGER = 3  # times as many frames, where those do not do
Arrays = dict[str, torch.Tensor]
Net: TypeAlias = Network | TorchNet


@dataclass(frozen=True)
class Kind:
    """Data that a network can do with. `tied`: all of equal lengths; `small`: zeros and ones, classes as well."""

    tied: bool = False
    small: bool = False


ANY = Kind()


def batch(net: Net, count: int, frames: int, kind: Kind = ANY) -> tuple[Arrays, Arrays]:
    """Random data by key, and lengths from `frames` down to a quarter; keys of one time axis have equal lengths.

    Features come before classes. Other axes have lengths that do not follow from `frames`, unless they are tied. A
    network that reads no data learns the number of sequences from some.
    """
    generator = torch.Generator().manual_seed(frames)
    data: Arrays = {}
    lengths: Arrays = {}
    axes: dict[Dim, int] = {}
    keys = net.used_data_keys or {min(net.extern_data.specs, key="data".__ne__)}
    specs = {key: net.extern_data.spec(key) for key in keys}
    for key, spec in sorted(specs.items(), key=lambda item: (item[1].sparse_dim is not None, item[0])):
        dims = [d for i, d in enumerate(spec.dims) if i != spec.batch]
        for d in dims:
            if d.size is None:
                axes.setdefault(d, frames if kind.tied else _length(frames, len(axes)))
        sizes = [d.size if d.size is not None else axes[d] for d in dims]
        shape = (count, *sizes)
        if spec.sparse_dim is not None:
            classes = 2 if kind.small else spec.sparse_dim.size or 2
            data[key] = torch.randint(classes, shape, generator=generator, dtype=torch.int32)
        elif kind.small:
            data[key] = torch.randint(2, shape, generator=generator).float()
        else:
            data[key] = torch.randn(shape, generator=generator)
        if spec.time_dim is not None and spec.time_dim.dynamic:
            longest = axes[spec.time_dim]
            ends = [longest - i * (longest * 3 // 4) // max(count - 1, 1) for i in range(count)]
            lengths[key] = torch.tensor(ends, dtype=torch.int32)
    return data, lengths


def as_inputs(data: Arrays, lengths: Arrays, keys: Collection[str] | None = None) -> Arrays:
    """The inputs of a module: data and "…_lengths" of all keys, or of these."""
    found = {key: x for key, x in data.items() if keys is None or key in keys}
    return {**found, **{f"{key}_lengths": x for key, x in lengths.items() if key in found}}


def _length(frames: int, axis: int) -> int:
    """The length of the axis of this number: near a half, a third … of `frames`, but no simple function of it."""
    return frames // (axis + 1) + frames * 7 % 13 + 5 if axis else frames
