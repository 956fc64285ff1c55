"""Frames along an axis: slices, shifts, windows, repetitions, the reverse."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.axes import with_dims
from returnn_lite.frontend.concat import pad
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.gather import gather
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.masks import dim_mask, padding_mask
from returnn_lite.frontend.sizes import range_over_dim, use_mask_default
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.where import where


def slice(  # noqa: A001 - the users' name
    source: Tensor,
    *,
    axis: Dim,
    start: int | Tensor | None = None,
    end: int | Tensor | None = None,
    step: int | None = None,
    size: int | Tensor | Dim | None = None,
    out_dim: Dim | None = None,
) -> tuple[Tensor, Dim]:
    """A part of an axis: (tensor, its axis), from `start` on (an int or a tensor), up to `end` or of `size`.

    A negative `end` counts from the end of each sequence.
    """
    at = axis_of(source.dims, axis, source)
    if step is not None and step != 1:
        raise WrongUse(f"slice of {source}: `step` must be 1, but is {step} instead")
    if isinstance(start, int) and start < 0:
        raise WrongUse(f"slice of {source}: `start` must be at least 0, but is {start} instead; `end` may be negative")
    start = None if isinstance(start, int) and start == 0 else start
    if start is None and end is None and size is None:
        return source, axis
    found = _slice_dim(axis, start, end, size)
    if out_dim is None:
        out_dim = found
    elif not out_dim.is_dim_known():
        out_dim.declare_same_as(found)
    if isinstance(start, Tensor) and start.dims:
        frames = range_over_dim(out_dim, device=start.device)
        index = frames._like(frames.raw_tensor)
        index._sparse_dim = None
        return gather(source, indices=start + index, axis=axis, clip_to_valid=True), out_dim
    first = 0 if start is None else int(start.raw_tensor) if isinstance(start, Tensor) else int(start)
    length, there = out_dim.padded_size(), source.raw_tensor.shape[at]
    if length and first + length > there:
        raise WrongUse(f"slice of {source}: frames {first} to {first + length} are not on axis {axis} of size {there}")
    dims = (*source.dims[:at], out_dim, *source.dims[at + 1 :])
    feature = out_dim if source.feature_dim_axis == at else source.feature_dim
    return with_dims(source, source.raw_tensor.narrow(at, min(first, there), length), dims, feature), out_dim


def _slice_dim(axis: Dim, start: Any, end: Any, size: Any) -> Dim:
    if size is not None:
        return size if isinstance(size, Dim) else Dim(size, name=f"{axis.name}:slice")
    if isinstance(end, Tensor) or (isinstance(end, int) and end >= 0):
        length = end if start is None else end - start
        return Dim(length, name=f"{axis.name}:slice")
    if isinstance(start, Tensor):
        left = (axis.get_size_tensor() - start).raw_tensor.clamp(min=0)
        found = axis.get_size_tensor() - start
        rest = Dim(found._like(left), name=f"{axis.name}:slice")
    else:
        rest = axis if start is None else axis.sub_left(start)
    return rest if end is None else rest.sub_right(-end)


def shift_right(source: Tensor, *, axis: Dim, pad_value: TensorLike, amount: int = 1) -> Tensor:
    """Frames moved to the right: `amount` frames of `pad_value` enter at the left, the last ones are lost."""
    return _shifted(source, axis, pad_value, amount)


def shift_left(source: Tensor, *, axis: Dim, pad_value: TensorLike, amount: int = 1) -> Tensor:
    """Frames moved to the left: `amount` frames of `pad_value` enter at the end of each sequence."""
    return _shifted(source, axis, pad_value, -amount)


def _shifted(source: Tensor, axis: Dim, value: Any, amount: int) -> Tensor:
    at = axis_of(source.dims, axis, source)
    fill = convert_to_tensor(value, dtype=source.dtype, keep_scalar_on_cpu=True)
    for dim in fill.dims:
        if dim not in source.dims:
            raise WrongUse(f"shift of {source}: the value {fill} has the axis {dim}, which is not there")
    raw, size = source.raw_tensor, source.raw_tensor.shape[at]
    filled = arranged(fill.raw_tensor, fill.dims, source.dims)
    position = torch.arange(size, device=raw.device).reshape([-1 if i == at else 1 for i in range(raw.dim())])
    if amount >= 0:
        outside = position < amount
    else:
        outside = position >= _size_for(axis, source) + amount
    return source._like(torch.where(outside, filled, raw.roll(amount, at)))


def _size_for(axis: Dim, x: Tensor) -> Any:
    """The sizes of an axis for the axes of a tensor; a number where they do not differ."""
    if not axis.need_masking():
        return axis.padded_size()
    sizes = axis.get_dyn_size_ext_for_device(x.raw_tensor.device)
    return arranged(as_torch(sizes), sizes.dims, x.dims)


def reverse_sequence(tensor: Tensor, *, axis: Dim, handle_dynamic_dims: bool = True) -> Tensor:
    """The valid frames in reverse order; with `handle_dynamic_dims` False all of the padded axis."""
    at = axis_of(tensor.dims, axis, tensor)
    raw = tensor.raw_tensor
    if not handle_dynamic_dims or not axis.need_masking():
        return tensor._like(raw.flip(at))
    position = torch.arange(raw.shape[at], device=raw.device).reshape([-1 if i == at else 1 for i in range(raw.dim())])
    mask = dim_mask(tensor, axis)
    index = torch.where(mask, _size_for(axis, tensor) - 1 - position, position)
    return tensor._like(raw.gather(at, index.expand(raw.shape)))


def window(
    source: Tensor,
    *,
    spatial_dim: Dim,
    window_dim: Dim,
    window_right: int | Dim | None = None,
    window_left: int | Dim | None = None,
    padding: str = "same",
    pad_value: TensorLike | None = None,
    stride: int = 1,
    use_mask: bool | None = None,
) -> tuple[Tensor, Dim]:
    """The frames around each frame: (tensor, spatial axis). The window axis precedes it (follows it with a stride).

    Frame t sees t - left … t + right. padding: "same" (frames of `pad_value` outside) or "valid".
    """
    if not isinstance(window_dim, Dim):
        raise WrongUse(f"window of {source}: `window_dim` must be an axis, but is {window_dim!r} instead")
    size = window_dim.padded_size()
    left, right = _sides(size, window_left, window_right)
    if padding not in ("same", "valid"):
        raise WrongUse(f'`padding` must be "same" or "valid", but is {padding!r} instead')
    default = use_mask_default(default=True, default_false_for_behavior_version_up_to=22, func_name="window")
    if default if use_mask is None else use_mask:
        mask = padding_mask(source, [spatial_dim])
        source = source if mask is None else source._like(torch.where(mask, source.raw_tensor, 0))
    if padding == "same":
        dynamic = BehaviorVersion.get() >= 21
        padded, (inner,) = pad(
            source, axes=[spatial_dim], padding=[(left, right)], value=pad_value, handle_dynamic_dims=dynamic
        )
        out = spatial_dim
    else:
        padded, inner, out = source, spatial_dim, spatial_dim - size + 1
    out = out.ceildiv_right(stride) if stride != 1 else out
    at = axis_of(padded.dims, inner)
    raw = _unfolded(padded.raw_tensor, at, size, stride, out).movedim(-1, at if stride == 1 else at + 1)
    pair = (window_dim, out) if stride == 1 else (out, window_dim)
    dims = (*source.dims[:at], *pair, *source.dims[at + 1 :])
    feature = source.feature_dim
    return with_dims(source, raw, dims, out if feature is not None and feature == spatial_dim else feature), out


def _unfolded(raw: torch.Tensor, axis: int, size: int, stride: int, out: Dim) -> torch.Tensor:
    """All windows of an axis, as a last axis; windows of zeros where it is too short for any."""
    if raw.shape[axis] >= size:
        return raw.unfold(axis, size, stride)
    return raw.new_zeros((*raw.shape[:axis], out.padded_size(), *raw.shape[axis + 1 :], size))


def _sides(size: int, left: Any, right: Any) -> tuple[int, int]:
    """(frames before, frames after) of a window."""
    first, last = (value.padded_size() if isinstance(value, Dim) else value for value in (left, right))
    if last is None:
        last = size // 2 if first is None else size - 1 - first
    return (size - 1 - last if first is None else first), last


def repeat(
    source: Tensor, *, in_spatial_dim: Dim, repeats: int | Tensor, out_spatial_dim: Dim | None = None
) -> tuple[Tensor, Dim]:
    """Frame i `repeats[i]` times: (tensor, new axis)."""
    counts = convert_to_tensor(repeats)
    if not dtypes.is_integer(counts.dtype):
        raise WrongUse(f"repeat of {source}: `repeats` must be ints, but is {repeats!r} instead")
    if in_spatial_dim not in counts.dims:
        frames = range_over_dim(in_spatial_dim, device=source.device)
        counts = frames._like(torch.zeros_like(frames.raw_tensor)) + counts
        counts._sparse_dim = None
    if in_spatial_dim.need_masking():
        mask = in_spatial_dim.get_mask(device=counts.device)
        counts = where(mask, counts, 0, allow_broadcast_all_sources=True)
    others = tuple(dim for dim in counts.dims if dim != in_spatial_dim)
    plain = counts.copy_transpose((*others, in_spatial_dim))
    ends = plain.raw_tensor.cumsum(-1)
    out = out_spatial_dim if out_spatial_dim is not None else Dim(None, name="repeat")
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = plain._new(plain.raw_tensor.sum(-1, dtype=torch.int32).cpu(), others)
    position = torch.arange(out.padded_size(), device=ends.device).expand(*ends.shape[:-1], -1)
    index = torch.searchsorted(ends.contiguous(), position.contiguous(), right=True)
    index = index.clamp(max=max(ends.shape[-1] - 1, 0))
    return gather(source, indices=plain._new(index, (*others, out)), axis=in_spatial_dim), out
