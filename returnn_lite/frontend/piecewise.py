"""Functions that are linear between points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from returnn_lite.frontend import dtypes
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.tensor import Tensor


class PiecewiseLinear(Module):
    """A function of points {x: y}, linear between them and constant outside."""

    def __init__(self, points: Mapping[float, float]) -> None:
        if not points:
            raise WrongUse("PiecewiseLinear must have points {x: y}")
        xs, ys = zip(*sorted(points.items()), strict=True)
        self._points_dim = Dim(len(xs), name="pieces")
        dtype = dtypes.get_default_float_dtype()
        self._keys = Parameter([self._points_dim], dtype, auxiliary=True, initial=np.array(xs, dtype="float64"))
        self._values = Parameter([self._points_dim], dtype, auxiliary=True, initial=np.array(ys, dtype="float64"))

    def __call__(self, x: Any) -> Tensor:
        """y of each x."""
        value = convert_to_tensor(x, dtype=None if hasattr(x, "dims") else self._keys.dtype)
        keys, ys = self._keys.raw_tensor.detach(), self._values.raw_tensor.detach()
        if not value.raw_tensor.is_floating_point():
            value = value._like(value.raw_tensor.to(keys.dtype))
        raw = value.raw_tensor.to(keys.device)
        if keys.numel() == 1:
            return value._like(ys.expand(raw.shape) + 0 * raw)
        right = torch.searchsorted(keys, raw.detach().contiguous()).clamp(1, keys.numel() - 1)
        x0, x1, y0, y1 = keys[right - 1], keys[right], ys[right - 1], ys[right]
        part = ((raw - x0) / (x1 - x0)).clamp(0, 1)
        return value._like(y0 + part * (y1 - y0))


class PiecewiseLinearStepwiseScheduler(PiecewiseLinear):
    """`PiecewiseLinear` of the training steps so far, whatever it is called with."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """y of the current step."""
        step = torch.tensor(float(get_run_ctx().step), dtype=self._keys.raw_tensor.dtype)
        return super().__call__(self._keys._new(step, ()))
