"""Entries selected by masks, and put back; packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from returnn_lite.frontend.axes import with_dims
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.gather import gather
from returnn_lite.frontend.layout import arranged, axis_of, show
from returnn_lite.frontend.masks import padding_mask
from returnn_lite.frontend.sizes import sequence_mask
from returnn_lite.frontend.tensor import Tensor, TensorLike


def masked_select(
    tensor: Tensor, *, mask: Tensor, dims: Sequence[Dim], out_dim: Dim | None = None
) -> tuple[Tensor, Dim]:
    """The entries where `mask` is True along `dims`: (tensor, new axis).

    dims: all axes of the mask: one flat axis first, then the rest. Some of them: entries for each position of the
    others, whose number is the size of the new axis. An `out_dim` with sizes is used as it is.
    """
    wanted = _checked(mask, dims)
    others = tuple(dim for dim in mask.dims if dim not in wanted)
    rest = tuple(dim for dim in tensor.dims if dim not in mask.dims)
    if not others:
        raw, count = _flat(tensor, mask, wanted, rest)
        out = _sized(out_dim, lambda: Tensor._new(torch.tensor(count), (), name="masked_select"))
        return with_dims(tensor, raw, (out, *rest), tensor.feature_dim), out
    keep = _valid(mask, (*others, *wanted)).flatten(len(others))
    counts = keep.sum(-1)
    out = _sized(out_dim, lambda: Tensor._new(counts.int().cpu(), others, name="masked_select"))
    order = keep.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., : out.padded_size()]
    whole = arranged(tensor.raw_tensor, tensor.dims, (*others, *wanted, *rest))
    whole = whole.expand(*_shape(mask, (*others, *wanted)), *whole.shape[len(others) + len(wanted) :])
    whole = whole.flatten(len(others), len(others) + len(wanted) - 1)
    places = [
        torch.arange(size, device=whole.device).reshape([-1 if j == i else 1 for j in range(len(others) + 1)])
        for i, size in enumerate(keep.shape[:-1])
    ]
    picked = whole[(*places, order)]
    return tensor._new(picked, (*others, out, *rest), sparse_dim=tensor.sparse_dim), out


def _checked(mask: Tensor, dims: Sequence[Dim]) -> Dims:
    wanted = tuple(dims)
    if mask.dtype != "bool":
        raise WrongUse(f"the mask must be bool, but is {mask} instead")
    if not wanted or any(dim not in mask.dims for dim in wanted):
        raise WrongUse(f"`dims` must be axes of the mask {mask}, but are {show(wanted)} instead")
    return wanted


def _sized(out: Dim | None, sizes: Any) -> Dim:
    """The axis of what is selected; its sizes are only made if it has none."""
    if out is None:
        return Dim(sizes(), name="masked_select")
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = sizes()
    return out


def _shape(x: Tensor, dims: Dims) -> list[int]:
    return [x.raw_tensor.shape[x.dims.index(dim)] for dim in dims]


def _valid(mask: Tensor, order: Dims) -> torch.Tensor:
    """The mask in this order, False in the padding of its own axes."""
    raw: torch.Tensor = arranged(mask.raw_tensor, mask.dims, order)
    padding = padding_mask(mask._new(raw, order), order)
    return raw if padding is None else raw & padding


def _flat(tensor: Tensor, mask: Tensor, dims: Dims, rest: Dims) -> tuple[torch.Tensor, int]:
    keep: torch.Tensor = arranged(mask.raw_tensor, mask.dims, dims)
    whole = arranged(tensor.raw_tensor, tensor.dims, (*dims, *rest))
    whole = whole.expand(*keep.shape, *whole.shape[len(dims) :])
    index = keep.flatten().nonzero().squeeze(-1)
    return whole.flatten(0, len(dims) - 1).index_select(0, index), index.numel()


def masked_scatter(
    source: Tensor, backup: TensorLike | None = None, *, mask: Tensor, dims: Sequence[Dim], in_dim: Dim
) -> Tensor:
    """The inverse of `masked_select`: entries of `in_dim` to where `mask` is True, elsewhere `backup` (default 0)."""
    wanted = _checked(mask, dims)
    others = tuple(dim for dim in mask.dims if dim not in wanted)
    order = (*others, *wanted)
    keep = _valid(mask, order) if others else arranged(mask.raw_tensor, mask.dims, order)
    flat = keep.flatten(len(others))
    index = (flat.cumsum(-1) - 1).clamp(min=0).reshape(keep.shape)
    condition = source._new(keep, order)
    at = axis_of(source.dims, in_dim, f"masked_scatter: {source}")
    if source.raw_tensor.shape[at] == 0:  # nothing is selected
        shape = list(source.raw_tensor.shape)
        shape[at] = 1
        source = source._like(source.raw_tensor.new_zeros(shape))
    spread = gather(source, indices=source._new(index, order), axis=in_dim)
    raw = _choose(condition, spread, backup)
    feature = spread.feature_dim if not others else None
    return with_dims(spread, raw, spread.dims, feature)


def _choose(condition: Tensor, spread: Tensor, backup: Any) -> torch.Tensor:
    keep = arranged(condition.raw_tensor, condition.dims, spread.dims)
    other = 0 if backup is None else backup
    if isinstance(other, Tensor):
        other = arranged(other.raw_tensor, other.dims, spread.dims).to(spread.raw_tensor.dtype)
    return torch.where(keep, spread.raw_tensor, other)


def pack_padded(
    source: Tensor, *, dims: Sequence[Dim], enforce_sorted: bool = False, out_dim: Dim | None = None
) -> tuple[Tensor, Dim]:
    """All frames that are no padding along one axis: (tensor, this axis)."""
    if enforce_sorted:
        raise WrongUse(f"pack_padded of {source}: enforce_sorted=True is not supported")
    return masked_select(source, mask=_sequence_mask(source, dims), dims=dims, out_dim=out_dim)


def _sequence_mask(source: Tensor, dims: Sequence[Dim]) -> Tensor:
    mask = sequence_mask(dims, device=source.raw_tensor.device)
    if len(mask.dims) < len(dims):
        raw = mask.copy_compatible_to_dims_raw(tuple(dims), unbroadcast=True)
        mask = mask._new(raw, tuple(dims))
    result: Tensor = mask
    return result


def pad_packed(source: Tensor, *, in_dim: Dim, dims: Sequence[Dim]) -> Tensor:
    """The inverse of `pack_padded`; padding is 0."""
    return masked_scatter(source, mask=_sequence_mask(source, dims), dims=dims, in_dim=in_dim)
