"""Tensors in float32, where half precision would not do."""

from __future__ import annotations

from returnn_lite.ops.precision import HALF, raised
from returnn_lite.tensor.tensor import Tensor


def in_float32(x: Tensor) -> Tensor:
    """The tensor, and what it was before its activation, in float32 if it is in half precision."""
    half = x.dtype in HALF or (x.pre is not None and x.pre.data.dtype in HALF)
    return x.each(raised) if half else x
