"""TensorFlow's functions on shapes and places: reshape, concat, gather, where, one_hot, …"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from returnn_lite.compat.tf.values import (
    TensorShape,
    as_tensor,
    common,
    pair,
    to_axes,
    to_dtype,
    to_int,
    to_ints,
    wrap_like,
)
from returnn_lite.layers.activations import carry_exact_log
from returnn_lite.ops import resampling
from returnn_lite.ops.masked import frame_mask


def shape(input: Any, out_type: Any = torch.int32) -> Tensor:  # noqa: A002 - TensorFlow's word
    """The sizes as a vector, on the CPU."""
    x = as_tensor(input)
    return wrap_like(torch.tensor(list(x.size()), dtype=to_dtype(out_type)), x)


def size(input: Any, out_type: Any = torch.int32) -> Tensor:  # noqa: A002
    """The number of entries."""
    x = as_tensor(input)
    return wrap_like(torch.tensor(x.numel(), dtype=to_dtype(out_type)), x)


def rank(input: Any) -> Tensor:  # noqa: A002
    """The number of axes."""
    x = as_tensor(input)
    return wrap_like(torch.tensor(x.dim(), dtype=torch.int32), x)


def identity(input: Any) -> Tensor:  # noqa: A002
    """The same."""
    x = as_tensor(input)
    return carry_exact_log(x.view_as(x), x, lambda y: y)


def expand_dims(input: Any, axis: Any = None, dim: Any = None) -> Tensor:  # noqa: A002
    """A new axis of size 1."""
    return as_tensor(input).unsqueeze(to_int(dim if axis is None else axis))


def squeeze(input: Any, axis: Any = None, squeeze_dims: Any = None) -> Tensor:  # noqa: A002
    """Without the axes of size 1, or without the given ones; ValueError if one has another size."""
    x = as_tensor(input)
    axis = squeeze_dims if axis is None else axis
    if axis is None or (isinstance(axis, (list, tuple)) and not axis):
        return x.squeeze()
    axes = to_axes(axis, x.dim())
    for a in axes:
        if x.size(a) != 1:
            raise ValueError(f"can not squeeze axis {a} of {tuple(x.size())}: its size must be 1")
    return x.squeeze(tuple(axes))


def transpose(a: Any, perm: Any = None) -> Tensor:
    """The axes in another order; all reversed without `perm`."""
    x = as_tensor(a)
    order = list(range(x.dim()))[::-1] if perm is None else to_ints(perm)
    return carry_exact_log(x.permute(order), x, lambda y: y.permute(order))


def reshape(tensor: Any, shape: Any) -> Tensor:
    """-1 is allowed once."""
    x = as_tensor(tensor)
    sizes = to_ints(shape)
    return carry_exact_log(x.reshape(sizes), x, lambda y: y.reshape(sizes))


def tile(input: Any, multiples: Any) -> Tensor:  # noqa: A002
    """The whole repeated along each axis."""
    return as_tensor(input).repeat(to_ints(multiples))


def broadcast_to(input: Any, shape: Any) -> Tensor:  # noqa: A002
    """Axes of size 1 repeated."""
    return as_tensor(input).expand(to_ints(shape))


def concat(values: Any, axis: Any) -> Tensor:
    """Behind each other along an axis."""
    return torch.cat(common([as_tensor(value) for value in values]), to_int(axis))


def stack(values: Any, axis: int = 0) -> Tensor:
    """Along a new axis."""
    return torch.stack(common([as_tensor(value) for value in values]), axis)


def unstack(value: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The entries along an axis, without it."""
    return list(as_tensor(value).unbind(axis))


def split(value: Any, num_or_size_splits: Any, axis: Any = 0) -> list[Tensor]:
    """An int: that many equal parts; a list: their sizes."""
    x, axis = as_tensor(value), to_int(axis)
    if isinstance(num_or_size_splits, (list, tuple)) or getattr(num_or_size_splits, "ndim", 0) == 1:
        sizes = to_ints(num_or_size_splits)
        if -1 in sizes:
            sizes[sizes.index(-1)] = x.size(axis) - sum(sizes) - 1
        return list(x.split(sizes, axis))
    count = to_int(num_or_size_splits)
    if x.size(axis) % count:
        raise ValueError(f"axis {axis} of {tuple(x.size())} must be divisible into {count} parts")
    return list(x.split(x.size(axis) // count, axis)) if x.size(axis) else [x] * count


def pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", name: Any = None, constant_values: Any = 0) -> Tensor:
    """paddings: (before, after) of every axis. `mode` also REFLECT and SYMMETRIC (mirrored without, with the edge)."""
    x = as_tensor(tensor)
    amounts = [to_ints(row) for row in paddings]
    if mode.upper() == "CONSTANT":
        flat = [amount for row in reversed(amounts) for amount in row]
        value = constant_values.item() if isinstance(constant_values, Tensor) else constant_values
        if x.dtype == torch.bool:
            return F.pad(x.to(torch.uint8), flat, value=int(value)).to(torch.bool)
        return F.pad(x, flat, value=value)
    for axis, (before, after) in enumerate(amounts):
        x = resampling.pad(x, axis, before, after, mode.lower())
    return x


def gather(
    params: Any,
    indices: Any,
    validate_indices: Any = None,
    name: Any = None,
    axis: Any = None,
    batch_dims: int = 0,
) -> Tensor:
    """Entries along an axis. Shape: params[:axis] + indices[batch_dims:] + params[axis + 1:]"""
    x, index = as_tensor(params), as_tensor(indices)
    index = index.to(x.device, torch.int64)
    batch = batch_dims % (index.dim() + 1)
    axis = batch if axis is None else to_int(axis) % x.dim()
    if not batch:
        picked = x.index_select(axis, index.reshape(-1))
        return picked.reshape(x.size()[:axis] + index.size() + x.size()[axis + 1 :])
    moved = x.movedim(axis, batch)  # batch axes, the axis, all others
    picked = moved[(*_batch_indices(index, batch), index)]
    inner = index.dim() - batch
    order = list(range(batch)) + list(range(batch + inner, inner + axis))
    order += list(range(batch, batch + inner)) + list(range(inner + axis, picked.dim()))
    return picked.permute(order)


def _batch_indices(index: Tensor, batch: int) -> list[Tensor]:
    """For each of the first axes of `index` its own positions, broadcast over the others."""
    sizes = index.size()
    return [
        torch.arange(sizes[a], device=index.device).reshape([-1 if b == a else 1 for b in range(index.dim())])
        for a in range(batch)
    ]


def batch_gather(params: Any, indices: Any) -> Tensor:
    """Per row, entries of that row."""
    return gather(params, indices, batch_dims=as_tensor(indices).dim() - 1)


def gather_nd(params: Any, indices: Any, name: Any = None, batch_dims: int = 0) -> Tensor:
    """The last axis of `indices` addresses the first axes of `params`."""
    x = as_tensor(params)
    index = as_tensor(indices).to(x.device, torch.int64)
    batch = _batch_indices(index[..., 0], batch_dims) if batch_dims else []

    def pick(y: Tensor) -> Tensor:
        return y[(*batch, *index.unbind(-1))]

    return carry_exact_log(pick(x), x, pick)


def scatter_nd(indices: Any, updates: Any, shape: Any) -> Tensor:
    """Zeros with updates added at the indices."""
    values = as_tensor(updates)
    index = as_tensor(indices).to(values.device, torch.int64)
    zeros = torch.zeros(to_ints(shape), dtype=values.dtype, device=values.device)
    return zeros.index_put(index.unbind(-1), values, accumulate=True)


def one_hot(
    indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: int = -1, dtype: Any = None
) -> Tensor:
    """A new axis; an index outside gives only `off_value`."""
    index = as_tensor(indices)
    on, off = pair(1 if on_value is None else on_value, 0 if off_value is None else off_value)
    if dtype is None and on_value is None and off_value is None:
        dtype = torch.float32
    hot = index.unsqueeze(-1) == torch.arange(to_int(depth), device=index.device)
    result = torch.where(hot, on.to(index.device), off.to(index.device))
    return (result if dtype is None else result.to(to_dtype(dtype))).movedim(-1, axis)


def sequence_mask(lengths: Any, maxlen: Any = None, dtype: Any = torch.bool) -> Tensor:
    """Shape: (…) -> (…, maxlen or the largest length)"""
    lens = as_tensor(lengths)
    longest = int(lens.max()) if maxlen is None else to_int(maxlen)
    return frame_mask(lens, longest).to(to_dtype(dtype))


def boolean_mask(tensor: Any, mask: Any, axis: int | None = None) -> Tensor:
    """The entries where the mask, over the leading axes, is True."""
    x, where_true = as_tensor(tensor), as_tensor(mask)
    return x[(slice(None),) * (axis or 0) + (where_true.to(x.device),)]


def where(condition: Any, x: Any = None, y: Any = None) -> Tensor:
    """x where the condition holds, else y; without them the indices (n, rank) int64.

    A vector as condition selects rows of x and y if it has as many entries and they have more axes; everything else
    is broadcast.
    """
    cond = as_tensor(condition, torch.bool)
    if x is None:
        return cond.nonzero()
    x, y = pair(x, y)
    if cond.dim() == 1 and x.dim() == y.dim() > 1 and len(cond) == x.size(0):
        cond = cond.reshape([-1] + [1] * (x.dim() - 1))
    condition, true, false = _on_one_device(cond, x, y)
    return torch.where(condition, true, false)


def _on_one_device(*parts: Tensor) -> list[Tensor]:
    device = next((part.device for part in parts if part.device.type != "cpu"), parts[0].device)
    return [part.to(device) for part in parts]


def meshgrid(*args: Any, indexing: str = "xy") -> list[Tensor]:
    """Each vector along its own axis ("xy": the first two swapped)."""
    return list(torch.meshgrid(*[as_tensor(arg) for arg in args], indexing=indexing))


def slice_(input_: Any, begin: Any, size: Any) -> Tensor:
    """From `begin`, `size` entries of each axis (-1 = the rest)."""
    x = as_tensor(input_)
    for axis, (start, length) in enumerate(zip(to_ints(begin), to_ints(size), strict=True)):
        x = x.narrow(axis, start, x.size(axis) - start if length == -1 else length)
    return x


def strided_slice(input_: Any, begin: Any, end: Any, strides: Any = None) -> Tensor:
    """input[begin:end:stride] per axis."""
    x = as_tensor(input_)
    starts, ends = to_ints(begin), to_ints(end)
    steps = [1] * len(starts) if strides is None else to_ints(strides)
    return x[tuple(slice(*bounds) for bounds in zip(starts, ends, steps, strict=True))]


def reverse(tensor: Any, axis: Any) -> Tensor:
    """The given axes backwards."""
    x = as_tensor(tensor)
    return x.flip(to_axes(axis, x.dim()))


def reverse_sequence(
    input: Any,  # noqa: A002
    seq_lengths: Any = None,
    seq_axis: int | None = None,
    batch_axis: int = 0,
    seq_dim: int | None = None,
    batch_dim: int | None = None,
) -> Tensor:
    """Each sequence backwards; what is behind its end stays."""
    x = as_tensor(input)
    time = to_int(seq_dim if seq_axis is None else seq_axis)
    order = (batch_axis if batch_dim is None else batch_dim, time)
    lens = as_tensor(seq_lengths).to(x.device, torch.int64)[:, None]
    front = x.movedim(order, (0, 1))
    place = torch.arange(front.size(1), device=x.device)
    index = torch.where(place < lens, lens - 1 - place, place)
    batch = torch.arange(front.size(0), device=x.device)[:, None]
    return front[batch, index].movedim((0, 1), order)


def unique(x: Any, out_idx: Any = torch.int32) -> tuple[Tensor, Tensor]:
    """Values in the order of their first occurrence, and for each entry the index of its value."""
    values = as_tensor(x)
    found, inverse = torch.unique(values, return_inverse=True)
    positions = torch.arange(len(values), device=values.device)
    first = torch.full([len(found)], len(values), device=values.device).scatter_reduce_(0, inverse, positions, "amin")
    order = first.argsort()
    return found[order], order.argsort()[inverse].to(to_dtype(out_idx))


def matrix_band_part(input: Any, num_lower: Any, num_upper: Any) -> Tensor:  # noqa: A002
    """Zero outside a band around the diagonal; -1 = everything on that side."""
    x, lower, upper = as_tensor(input), to_int(num_lower), to_int(num_upper)
    x = x if lower < 0 else x.triu(-lower)
    return x if upper < 0 else x.tril(upper)


def segment_sum(data: Any, segment_ids: Any) -> Tensor:
    """Sum of the rows with the same id; ids are sorted. Shape: (n, …), (n,) -> (last id + 1, …)"""
    ids = as_tensor(segment_ids)
    return unsorted_segment_sum(data, ids, int(ids[-1]) + 1 if len(ids) else 0)


def unsorted_segment_sum(data: Any, segment_ids: Any, num_segments: Any) -> Tensor:
    """Sum of the rows with the same id, over the leading axes that the ids have."""
    x = as_tensor(data)
    ids = as_tensor(segment_ids).to(x.device, torch.int64)
    zeros = x.new_zeros(torch.Size([to_int(num_segments)]) + x.size()[ids.dim() :])
    return zeros.index_add(0, ids.reshape(-1), x.flatten(0, ids.dim() - 1))


def segment_min(data: Any, segment_ids: Any) -> Tensor:
    """Least of the rows with the same id; 0 for ids that do not occur."""
    return _segment_extreme(data, segment_ids, "amin")


def segment_max(data: Any, segment_ids: Any) -> Tensor:
    """Greatest of the rows with the same id; 0 for ids that do not occur."""
    return _segment_extreme(data, segment_ids, "amax")


def _segment_extreme(data: Any, segment_ids: Any, reduce: str) -> Tensor:
    x = as_tensor(data)
    ids = as_tensor(segment_ids).to(x.device, torch.int64)
    zeros = x.new_zeros(torch.Size([int(ids[-1]) + 1 if len(ids) else 0]) + x.size()[1:])
    index = ids.reshape([-1] + [1] * (x.dim() - 1)).expand(x.size())
    return zeros.scatter_reduce(0, index, x, reduce, include_self=False)


def ensure_shape(x: Any, shape: Any) -> Tensor:
    """x; ValueError if it has another shape (None fits all)."""
    tensor, wanted = as_tensor(x), TensorShape(shape)
    if len(wanted) != tensor.dim() or any(a not in (None, b) for a, b in zip(wanted, tensor.size(), strict=True)):
        raise ValueError(f"the shape must be {tuple(wanted)}, but is {tuple(tensor.size())} instead")
    return tensor


def all_functions() -> dict[str, Any]:
    """The functions by TensorFlow's names."""
    own = [
        shape, size, rank, identity, expand_dims, squeeze, transpose, reshape, tile, broadcast_to, concat, stack,
        unstack, split, pad, gather, batch_gather, gather_nd, scatter_nd, one_hot, sequence_mask, boolean_mask, where,
        meshgrid, strided_slice, reverse, reverse_sequence, unique, matrix_band_part, segment_sum, segment_min,
        segment_max, unsorted_segment_sum, ensure_shape,
    ]  # fmt: skip
    return {function.__name__: function for function in own} | {"slice": slice_}
