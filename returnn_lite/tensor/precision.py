"""Tensors in float32, where half precision would not do."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.ops.precision import HALF, raised
from returnn_lite.tensor.deferred import Deferred
from returnn_lite.tensor.tensor import Tensor


def in_float32(x: Tensor) -> Tensor:
    """The tensor, and what it was before its activation, in float32 if it is in half precision."""
    if isinstance(x, Deferred):
        return x.each(raised) if x.pre.data.dtype in HALF else x
    pre = x.pre
    if pre is not None and pre.data.dtype in HALF:
        pre = replace(pre, data=raised(pre.data))
    if x.data.dtype not in HALF:
        return x if pre is x.pre else replace(x, pre=pre)
    return replace(x, data=raised(x.data), pre=pre)
