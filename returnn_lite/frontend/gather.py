"""Entries of an axis picked by position, and positions found by value."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.axes import with_dims
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.reduce import top_k
from returnn_lite.frontend.sizes import last_frame_position_of_dim
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.where import clip_by_value, where


def gather(source: Tensor, *, indices: int | Tensor, axis: Dim | None = None, clip_to_valid: bool = False) -> Tensor:
    """The entries of an axis at `indices`, an int or int tensor.

    Axes of `indices` that `source` also has are gone along with; its other axes replace `axis`, by default the sparse
    axis of `indices`. clip_to_valid: positions outside mean the first or last valid one.
    """
    if axis is None:
        axis = indices.sparse_dim if isinstance(indices, Tensor) else None
        if axis is None:
            raise WrongUse(
                f"gather from {source} by {indices}: `axis` must be given, as the indices have no sparse axis"
            )
    at = axis_of(source.dims, axis, source)
    if not isinstance(indices, Tensor):
        if not isinstance(indices, int | np.integer):
            raise WrongUse(f"gather from {source}: `indices` must be an int or a Tensor, but is {indices!r} instead")
        if not clip_to_valid or not axis.need_masking():
            return _one(source, at, int(indices), clip_to_valid)
        indices = convert_to_tensor(int(indices), device=source.device)
    if clip_to_valid:
        indices = _clipped(indices, axis)
    if not dtypes.is_integer(indices.dtype):
        raise WrongUse(f"gather from {source}: the indices must be ints, but are {indices} instead")
    if not indices.dims and not indices.raw_tensor.is_cuda:
        return _one(source, at, int(indices.raw_tensor), clip_to_valid)
    batch = [dim for dim in source.dims if dim != axis and dim in indices.dims]
    own = tuple(dim for dim in indices.dims if dim not in batch)
    rest = [dim for dim in source.dims if dim != axis and dim not in batch]
    index = arranged(indices.raw_tensor, indices.dims, (*batch, *own)).long()
    raw = _picked(arranged(source.raw_tensor, source.dims, (*batch, axis, *rest)), index, len(batch), source)
    wanted = (*source.dims[:at], *own, *source.dims[at + 1 :])
    raw = arranged(raw, (*batch, *own, *rest), wanted)
    feature = source.feature_dim
    return with_dims(source, raw, wanted, None if feature is not None and feature == axis else feature)


def _one(source: Tensor, at: int, index: int, clip: bool) -> Tensor:
    """One entry; negative positions count from the end."""
    size = source.raw_tensor.shape[at]
    if clip:
        index = min(max(index, 0), size - 1)
    if not -size <= index < size:
        raise WrongUse(f"gather from {source}: position {index} is not on axis {source.dims[at]} of size {size}")
    rest = source.dims[:at] + source.dims[at + 1 :]
    feature = source.feature_dim if source.feature_dim_axis != at else None
    return with_dims(source, source.raw_tensor.select(at, index), rest, feature)


def _clipped(indices: Tensor, axis: Dim) -> Tensor:
    last = last_frame_position_of_dim(axis, device=indices.raw_tensor.device)
    if isinstance(last, Tensor):
        last = last._like(last.raw_tensor.to(indices.raw_tensor.dtype))
        last._sparse_dim = None
    return clip_by_value(indices, 0, last, allow_broadcast_all_sources=True)


def _picked(x: torch.Tensor, index: torch.Tensor, batch: int, source: Tensor) -> torch.Tensor:
    """Shape: x (*batch, axis, *rest), index (*batch, *own) -> (*batch, *own, *rest)"""
    found: torch.Tensor
    try:
        if batch == 0:
            if x.dim() == 2 and x.is_floating_point():
                found = functional.embedding(index, x)
            elif index.dim() == 0:  # of a GPU: the number is not waited for
                found = x.index_select(0, index.reshape(1) % x.shape[0]).squeeze(0)
            else:
                found = x.index_select(0, index.flatten()).reshape(*index.shape, *x.shape[1:])
            return found
        places = []
        for i in range(batch):
            shape = [-1 if j == i else 1 for j in range(index.dim())]
            places.append(torch.arange(x.shape[i], device=x.device).reshape(shape))
        return x[(*places, index)]
    except (IndexError, RuntimeError) as error:
        raise WrongUse(f"gather from {source}: {str(error).splitlines()[0]}") from None


def search_sorted(
    sorted_seq: Tensor, values: Tensor, *, axis: Dim, side: str = "left", out_dtype: str = "int32"
) -> Tensor:
    """Where values would be put into a sorted axis; before equal entries, or with side="right" after them."""
    axis_of(sorted_seq.dims, axis, f"search_sorted: {sorted_seq}")
    others = tuple(dim for dim in sorted_seq.dims if dim != axis)
    rest = tuple(dim for dim in values.dims if dim not in others)
    seq = arranged(sorted_seq.raw_tensor, sorted_seq.dims, (*others, axis))
    wanted = (*others, *rest)
    raw = arranged(values.raw_tensor, values.dims, wanted)
    raw = raw.expand([*seq.shape[:-1], *raw.shape[len(others) :]])
    flat = raw.reshape(*seq.shape[:-1], -1).contiguous()
    found = torch.searchsorted(seq.contiguous(), flat, right=side == "right")
    return values._new(found.reshape(raw.shape).to(dtypes.torch_dtype(out_dtype)), wanted, sparse_dim=axis)


def sort(source: Tensor, *, axis: Dim, descending: bool = False, stable: bool = True) -> tuple[Tensor, Tensor, Dim]:
    """(values, positions, new axis) of an axis of fixed size in order; the new axis is the last."""
    if axis.need_masking():
        raise WrongUse(f"sort of {source}: axis {axis} must have no padding")
    at = axis_of(source.dims, axis, source)
    values, index = source.raw_tensor.movedim(at, -1).sort(dim=-1, descending=descending, stable=stable)
    new = axis.copy(same_as_self=False, description=f"{axis.name}:sorted")
    dims = (*source.dims[:at], *source.dims[at + 1 :], new)
    feature = new if source.feature_dim is not None and source.feature_dim == axis else None
    return with_dims(source, values, dims, feature), source._new(index, dims, sparse_dim=axis), new


def top_k_mask(values: Tensor, *, axis: Dim, k: int | Dim) -> Tensor:
    """Which entries are among the k largest: bool, the axis last."""
    _, index, k_dim = top_k(values, axis=axis, k=k)
    dims = (*(dim for dim in values.dims if dim != axis), axis)
    mask = torch.zeros([values.raw_tensor.shape[values.dims.index(dim)] for dim in dims], dtype=torch.bool)
    mask = mask.to(values.raw_tensor.device).scatter(-1, index.raw_tensor, True)
    return values._new(mask, dims)


def top_p_mask(
    probs: Tensor, *, axis: Dim, p: float | Tensor, one_more: bool = True, min_tokens_to_keep: int = 1
) -> Tensor:
    """Which entries, from the largest on, sum up to at most p (and one more): bool, the axis last."""
    at = axis_of(probs.dims, axis, probs)
    dims = (*probs.dims[:at], *probs.dims[at + 1 :], axis)
    values, index = probs.raw_tensor.movedim(at, -1).sort(dim=-1, descending=True, stable=True)
    total = values.cumsum(-1)
    keep = total <= (arranged(p.raw_tensor, p.dims, dims) if isinstance(p, Tensor) else p)
    if one_more:
        keep = torch.cat([torch.ones_like(keep[..., :1]), keep[..., :-1]], -1)
    keep[..., :min_tokens_to_keep] = True
    return probs._new(torch.zeros_like(keep).scatter(-1, index, keep), dims)


def sparse_to_dense(
    labels: int | Tensor, *, label_value: TensorLike, other_value: TensorLike, axis: Dim | None = None
) -> Tensor:
    """`label_value` at the class and `other_value` elsewhere; the axis of the classes is the last."""
    sparse = labels.sparse_dim if isinstance(labels, Tensor) else None
    dim = axis if axis is not None else sparse
    if dim is None:
        raise WrongUse(f"sparse_to_dense of {labels}: `axis` must be given, as no sparse axis is set")
    device = labels.raw_tensor.device if isinstance(labels, Tensor) else dtypes.get_default_device()
    classes = torch.arange(dim.padded_size(), device=device)
    is_class = (labels.raw_tensor.unsqueeze(-1) if isinstance(labels, Tensor) else int(labels)) == classes
    dims = (*(labels.dims if isinstance(labels, Tensor) else ()), dim)
    return where(Tensor._new(is_class, dims), label_value, other_value, allow_broadcast_all_sources=True)


def one_hot(source: Tensor) -> Tensor:
    """1.0 at the class and 0.0 elsewhere."""
    return sparse_to_dense(source, label_value=1.0, other_value=0.0)
