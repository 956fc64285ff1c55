"""Batches of few shapes: time axes padded up to the next of some sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.network import Network
from returnn_lite.tensor import Spec

STEPS = 8  # sizes an octave: at most an eighth of a padded axis is padding, a sixteenth on average


def padded_size(size: int) -> int:
    """The next of the sizes that axes are padded to: n 2^k with n from 8 to 15.

    >>> [padded_size(n) for n in (7, 16, 17, 100, 500)]
    [7, 16, 18, 104, 512]
    """
    step = 1 << max(0, size.bit_length() - STEPS.bit_length())
    return -(-size // step) * step


@dataclass(frozen=True)
class BatchShape:
    """What batches that share a recorded step have in common: shape and dtype of each data key, the keys of lengths."""

    data: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    lengths: tuple[str, ...]


def batch_shape(
    data: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor], specs: Mapping[str, Spec], *, pads: bool
) -> BatchShape:
    """The shape of a batch-first batch, its dynamic axes padded if `pads`."""
    found = []
    for key in sorted(data):
        x, dynamic = data[key], _dynamic(specs[key]) if pads else ()
        shape = tuple(padded_size(n) if i in dynamic else n for i, n in enumerate(x.shape))
        found.append((key, shape, x.dtype))
    return BatchShape(tuple(found), tuple(sorted(lengths)))


def _dynamic(spec: Spec) -> tuple[int, ...]:
    """The positions of dynamic axes in the batch-first data of a key."""
    dims = [d for d in spec.dims if not d.is_batch]
    return tuple(i + (spec.batch is not None) for i, d in enumerate(dims) if d.dynamic)


def padded(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`x` with zeros behind, of this shape."""
    missing = [want - have for want, have in zip(shape, x.shape, strict=True)]
    return F.pad(x, [n for pair in ((0, m) for m in reversed(missing)) for n in pair]) if any(missing) else x


def may_pad(net: Network) -> bool:
    """Whether more frames behind the ends of all sequences change nothing: no layer looks at them."""
    layers = net.program.layers
    return not any(layer.lets_padding_through or layer.sees_batch or layer.options.batch_norm for layer in layers)
