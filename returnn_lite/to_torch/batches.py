"""Random batches on which a network is recorded and checked, and what it gives for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch

from returnn_lite.engine.models.torch_model import TorchNet
from returnn_lite.errors import ConfigError
from returnn_lite.network.network import Network
from returnn_lite.tensor import Dim, Tensor

# (sequences, frames) that are recorded: of unlike rests after division by 3, many of rest 1 after one by 8, where each
# of several poolings by 2 pads, and numbers of sequences that no size of the frames follows.
BATCHES = ((2, 23), (3, 38), (4, 60), (2, 49), (5, 41), (2, 65), (3, 33), (3, 73))
CHECKED = ((4, 31), (1, 17), (3, 40), (2, 37))  # that are compared
LONGER = 3  # times as many frames, where those do not do
Arrays = dict[str, torch.Tensor]
Net: TypeAlias = Network | TorchNet


@dataclass(frozen=True)
class Kind:
    """Data that a network can do with.

    `padded`: some arrays are longer than their longest sequence; `tied`: all are of equal lengths; `small`: zeros and
    ones, classes as well.
    """

    padded: bool = False
    tied: bool = False
    small: bool = False


UNPADDED = Kind()
KINDS = (Kind(padded=True), UNPADDED, Kind(tied=True), Kind(small=True))  # in this order: what a network can do with


def batch(net: Net, count: int, frames: int, kind: Kind = UNPADDED) -> tuple[Arrays, Arrays]:
    """Random data by key, and lengths from `frames` down to a quarter; keys of one time axis have equal lengths.

    Features come before classes. Other axes have lengths that do not follow from `frames`, unless they are tied: with
    an even number of sequences about a half, with an odd one a quarter. With an odd one there is more padding than
    needed, too, and it is not always the first sequence that is the longest. A network that reads no data learns the
    number of sequences from some.
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
                axes.setdefault(d, frames if kind.tied else _length(count, frames, len(axes)))
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
            longest = max(axes[spec.time_dim] - (frames * 5 % 11 % 4 + 1 if kind.padded and count % 2 else 0), 1)
            ends = [longest - i * (longest * 3 // 4) // max(count - 1, 1) for i in range(count)]
            first = (frames + list(axes).index(spec.time_dim)) % count
            lengths[key] = torch.tensor(ends[first:] + ends[:first], dtype=torch.int32)
    return data, lengths


def seed(net: Net, number: int) -> None:
    """Has the network draw the random numbers that torch draws by itself: those of the module."""
    if isinstance(net, Network):
        net.seed(number)
    torch.manual_seed(number)


def results(net: Net, layer: str, arrays: Arrays, lengths: Arrays) -> Arrays:
    """What the module is to give. The net stays as it is."""
    with kept_params(net):
        return given(net(arrays, lengths)[layer])


def given(x: Tensor) -> Arrays:
    """The output of a layer, batch first, its lengths, the scores of its hypotheses."""
    out = x.batch_major()
    found = {"output": out.data}
    time = out.spec.time_dim
    if time is not None and time.dynamic:
        found["lengths"] = out.length(time).values
    if out.beam is not None and not out.beam.decided:
        found["scores"] = out.beam.scores
    return found


def kind_of_data(net: Net, layer: str, *, padded: bool = True) -> Kind:
    """The first kind of data on which the network runs; `padded`: there may be more padding than needed."""
    for kind in KINDS if padded else KINDS[1:]:
        try:
            with torch.no_grad():
                results(net, layer, *batch(net, 2, 20, kind))
                results(net, layer, *batch(net, 3, 20, kind))
            return kind
        except (ConfigError, RuntimeError, IndexError):
            continue
    return UNPADDED


@contextmanager
def kept_params(net: Net) -> Iterator[None]:
    """While the net runs; afterwards its parameters are as before (`batch_norm` may change its running values)."""
    before = {name: param.detach().clone() for name, param in net.params.items()}
    try:
        yield
    finally:
        for name, param in net.params.items():
            if not torch.equal(param, before[name]):
                param.data.copy_(before[name])


def as_inputs(data: Arrays, lengths: Arrays, keys: Collection[str] | None = None) -> Arrays:
    """The inputs of a module: data and "…_lengths" of all keys, or of these."""
    found = {key: x for key, x in data.items() if keys is None or key in keys}
    return {**found, **{f"{key}_lengths": x for key, x in lengths.items() if key in found}}


def _length(count: int, frames: int, axis: int) -> int:
    """The length of the axis of this number, no simple function of `frames`."""
    if not axis:
        return frames
    return frames // (axis + 3) + frames * 5 % 11 + 1 if count % 2 else frames // (axis + 1) + frames * 7 % 13 + 5
