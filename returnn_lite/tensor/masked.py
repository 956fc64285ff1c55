"""Masks of valid frames, shaped to broadcast against a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from returnn_lite.tensor.dim import Dim, batch_dim
from returnn_lite.tensor.spec import Spec
from returnn_lite.tensor.tensor import Tensor


def mask(x: Tensor, axis: int) -> torch.Tensor | None:
    """Bool, broadcastable to `x.data`: True at valid positions of this axis; None if all are (a static axis)."""
    dim = x.spec.dims[axis]
    if not dim.dynamic:
        return None
    lengths = x.length(dim)
    if x.spec.batch is None and batch_dim in lengths.dims:
        return None  # shared by all sequences, so each position is valid for one of them
    return _spread(lengths.mask(x.shape[axis]), (*lengths.dims, dim), x, axis)


def mask_all(x: Tensor, axes: Sequence[int] | None = None) -> torch.Tensor | None:
    """Bool: True where the positions on all the given dynamic axes (default: all) are valid; None if there is none."""
    total: torch.Tensor | None = None
    for axis in range(x.spec.rank) if axes is None else axes:
        part = mask(x, axis)
        if part is not None:
            total = part if total is None else total & part
    return total


def fill_padding(x: Tensor, value: float, axes: Sequence[int] | None = None) -> torch.Tensor:
    """The data of `x` with `value` after the sequence ends."""
    valid = mask_all(x, axes)
    return x.data if valid is None else x.data.masked_fill(~valid, value)


def _spread(valid: torch.Tensor, dims: tuple[Dim, ...], x: Tensor, axis: int) -> torch.Tensor:
    """Brings a mask with axes `dims` (the last one is `axis` of x) into the axis order of `x`."""
    order, positions = _spreading(dims, x.spec, axis)
    shape = [1] * x.spec.rank
    for i in order:
        shape[positions[i]] = valid.shape[i]
    return valid.permute(order).reshape(shape)


@lru_cache(maxsize=4096)
def _spreading(dims: tuple[Dim, ...], spec: Spec, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The order of the axes `dims` in `spec`, and the position of each."""
    positions = (*(_position(spec, d) for d in dims[:-1]), axis)
    return tuple(sorted(range(len(positions)), key=positions.__getitem__)), positions


def _position(spec: Spec, dim: Dim) -> int:
    for i, d in enumerate(spec.dims):
        if d == dim or (d.is_batch and dim.is_batch):
            return i
    raise KeyError(f"the lengths have an axis {dim} that the tensor lacks")
