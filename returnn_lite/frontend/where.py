"""Choosing between tensors entry by entry, and limits."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.frontend.binary import common_dims, maximum, minimum
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.dim import Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_copies import place_for


def where(
    cond: TensorLike, true_: TensorLike, false_: TensorLike, *, allow_broadcast_all_sources: bool = False
) -> Tensor:
    """`true_` where `cond`, else `false_`; numbers are allowed.

    The type is that of `true_` if it is a tensor, else of `false_`; roles are those of `true_`, else of `false_`.
    """
    condition = convert_to_tensor(cond)
    if condition.dtype != "bool":
        raise WrongUse(f"where: `cond` must be bool, but is {condition} instead")
    tensors = [value for value in (true_, false_) if isinstance(value, Tensor)]
    if not tensors:
        tensors = [convert_to_tensor(true_, keep_scalar_on_cpu=True)]
        true_ = tensors[0]
    like = tensors[0]
    dims = common_dims([*tensors, condition], allow_broadcast_all_sources, "where", place_for)
    yes, no = (_operand(value, like, dims) for value in (true_, false_))
    raw = torch.where(arranged(condition._raw, condition._dims, dims), yes, no)
    sparse = next((x._sparse_dim for x in tensors if x._sparse_dim is not None), None)
    feature = next((x.feature_dim for x in tensors if x.feature_dim_axis is not None), None)
    return like._new(raw, dims, sparse_dim=sparse, feature_axis=None if feature is None else dims.index(feature))


def _operand(value: Any, like: Tensor, dims: Dims) -> Any:
    """A tensor laid out for the result, or a number, of the type of `like`."""
    dtype = like._raw.dtype
    if isinstance(value, Tensor):
        raw = arranged(value._raw, value._dims, dims)
        return raw if raw.dtype == dtype else raw.to(dtype)
    if isinstance(value, bool | int | float):
        if dtype.is_floating_point:
            return float(value)
        return bool(value) if dtype == torch.bool else int(value)
    return convert_to_tensor(value, dtype=like.dtype, keep_scalar_on_cpu=True)._raw


def clip_by_value(
    x: Tensor,
    clip_value_min: TensorLike | None = None,
    clip_value_max: TensorLike | None = None,
    *,
    allow_broadcast_all_sources: bool = False,
) -> Tensor:
    """x between two limits, of which each may be a number, a tensor, or None."""
    if clip_value_min is None and clip_value_max is None:
        return x
    if clip_value_min is None or clip_value_max is None:
        found: Tensor = minimum(x, clip_value_max) if clip_value_min is None else maximum(x, clip_value_min)
        return found
    for limit in (clip_value_min, clip_value_max):
        if isinstance(limit, str):
            raise WrongUse(f"clip_by_value of {x}: the limits must be numbers or tensors, but one is {limit!r}")
    low, high = (convert_to_tensor(value, keep_scalar_on_cpu=True) for value in (clip_value_min, clip_value_max))
    dims = common_dims([x, low, high], allow_broadcast_all_sources, "clip_by_value", place_for)
    raw, least, most = (arranged(t.raw_tensor, t.dims, dims) for t in (x, low, high))
    if not low.dims and not high.dims and not isinstance(clip_value_min, Tensor | torch.Tensor):
        raw = (
            raw.clamp(clip_value_min, clip_value_max)
            if not isinstance(clip_value_max, Tensor)
            else raw.clamp(least, most)
        )
    else:
        raw = raw.clamp(least, most)
    feature = x.feature_dim
    return x._new(raw, dims, sparse_dim=x.sparse_dim, feature_axis=None if feature is None else dims.index(feature))


def lerp(start: Tensor, end: Tensor, weight: TensorLike, *, allow_broadcast_all_sources: bool = False) -> Tensor:
    """start + weight · (end - start)"""
    factor = convert_to_tensor(weight, keep_scalar_on_cpu=True)
    dims = common_dims([start, end, factor], allow_broadcast_all_sources, "lerp", place_for)
    first, last, part = (arranged(t.raw_tensor, t.dims, dims) for t in (start, end, factor))
    feature = start.feature_dim
    raw = first + part * (last - first)
    return start._new(
        raw, dims, sparse_dim=start.sparse_dim, feature_axis=None if feature is None else dims.index(feature)
    )
