"""Choosing between tensors entry by entry, and limits."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.frontend.binary import common_dims, maximum, minimum
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.tensor_copies import place_for


def where(cond: Any, true_: Any, false_: Any, *, allow_broadcast_all_sources: bool = False) -> Tensor:
    """`true_` where `cond`, else `false_`; numbers are allowed.

    The type is that of `true_` if it is a tensor, else of `false_`; roles are those of `true_`, else of `false_`.
    """
    condition = convert_to_tensor(cond)
    if condition.dtype != "bool":
        raise WrongUse(f"where: `cond` must be bool, but is {condition} instead")
    operands = [value if isinstance(value, Tensor) else None for value in (true_, false_)]
    leading = next((operand for operand in operands if operand is not None), None)
    like = leading if leading is not None else convert_to_tensor(true_)
    both = [
        operand if operand is not None else convert_to_tensor(value, dtype=like.dtype, keep_scalar_on_cpu=True)
        for operand, value in zip(operands, (true_, false_), strict=True)
    ]
    dims = common_dims([*both, condition], allow_broadcast_all_sources, "where", place_for)
    yes, no = (arranged(x.raw_tensor, x.dims, dims) for x in both)
    raw = torch.where(
        arranged(condition.raw_tensor, condition.dims, dims),
        yes.to(like.raw_tensor.dtype),
        no.to(like.raw_tensor.dtype),
    )
    sparse = next((x.sparse_dim for x in both if x.sparse_dim is not None), None)
    feature = next((x.feature_dim for x in both if x.feature_dim is not None), None)
    return like._new(raw, dims, sparse_dim=sparse, feature_axis=None if feature is None else dims.index(feature))


def clip_by_value(
    x: Tensor, clip_value_min: Any = None, clip_value_max: Any = None, *, allow_broadcast_all_sources: bool = False
) -> Tensor:
    """x between two limits, of which each may be a number, a tensor, or None."""
    if clip_value_min is None and clip_value_max is None:
        return x
    if clip_value_min is None or clip_value_max is None:
        found: Tensor = minimum(x, clip_value_max) if clip_value_min is None else maximum(x, clip_value_min)
        return found
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
        raw = raw.clamp(least.to(raw.dtype), most.to(raw.dtype))
    feature = x.feature_dim
    return x._new(raw, dims, sparse_dim=x.sparse_dim, feature_axis=None if feature is None else dims.index(feature))


def lerp(start: Tensor, end: Tensor, weight: Any, *, allow_broadcast_all_sources: bool = False) -> Tensor:
    """start + weight · (end - start)"""
    factor = convert_to_tensor(weight, keep_scalar_on_cpu=True)
    dims = common_dims([start, end, factor], allow_broadcast_all_sources, "lerp", place_for)
    first, last, part = (arranged(t.raw_tensor, t.dims, dims) for t in (start, end, factor))
    feature = start.feature_dim
    raw = first + part * (last - first)
    return start._new(
        raw, dims, sparse_dim=start.sparse_dim, feature_axis=None if feature is None else dims.index(feature)
    )
