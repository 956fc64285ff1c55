"""`pool`: the largest or the mean value in sliding windows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.spatial import channels_first, channels_last, pad_edges, spatial_axes, window_spec, windows
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.masked import fill_padding

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@layer("pool")
class Pool(Layer):
    """Max or average pooling over the spatial axes.  Shape: (B, T, F) -> (B, T', F); lengths as for convolutions.

    `padding`: "valid", "same", "same_static" (zeros, also for max) or a number. Max: "same" padding never wins.
    Average, "same": divided by the number of positions inside the padded tensor. Frames behind a sequence end count
    as they are, unless `use_time_mask`.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        mode: str,
        pool_size: Any,
        padding: Any = "VALID",
        dilation_rate: Any = 1,
        strides: Any = None,
        in_spatial_dims: AxisText = None,
        use_time_mask: bool = False,
        use_channel_first: Any = None,
    ) -> None:
        super().__init__()
        if mode not in ("max", "avg"):
            raise self.error(f'`mode` must be "max" or "avg", but is {mode!r} instead')
        self.mode = mode
        self.windows = windows(pool_size, pool_size if strides is None else strides, dilation_rate, padding)
        self.in_spatial_dims = in_spatial_dims
        self.use_time_mask = use_time_mask
        if len(self.windows) not in _MAX:
            raise self.error(f"`pool_size` must have 1 to 3 entries, but has {len(self.windows)} instead")

    @property
    def trivial(self) -> bool:
        """Whether every window is one position."""
        return all(w.size == 1 and w.stride == 1 for w in self.windows)

    def spec(self, x: Spec | None) -> Spec | None:
        """Batch axes, spatial axes with new lengths, features."""
        if x is None or self.trivial:
            return x
        feature = None if x.feature is None else x.dims[x.feature]
        return window_spec(x, self._axes(x), self.windows, feature, self.name)

    def _axes(self, x: Spec) -> tuple[int, ...]:
        return spatial_axes(x, self.in_spatial_dims, len(self.windows), self.behavior)

    def forward(self, x: Tensor) -> Tensor:
        """The pooled source."""
        if self.trivial:
            return x
        axes = self._axes(x.spec)
        if self.use_time_mask:
            x = x.with_data(fill_padding(x, float("-inf") if self.mode == "max" else 0.0, axes))
        data, lead = channels_first(x, axes)
        pooled = self._max(data, x, axes) if self.mode == "max" else self._average(data, x, axes)
        return x.with_data(channels_last(pooled, lead, x.spec.feature is not None), self.spec(x.spec))

    def _margins(self, x: Tensor, axes: tuple[int, ...]) -> list[tuple[int, int]]:
        pairs = zip(axes, self.windows, strict=True)
        return [w.margins(x.data.shape[i], x.spec.dims[i].dynamic) for i, w in pairs]

    def _max(self, data: torch.Tensor, x: Tensor, axes: tuple[int, ...]) -> torch.Tensor:
        static = self.windows[0].padding == "same_static"
        padded = pad_edges(data, self._margins(x, axes), 0.0 if static else float("-inf"))
        sizes, strides = [w.size for w in self.windows], [w.stride for w in self.windows]
        return _MAX[len(axes)](padded, sizes, strides, 0, [w.dilation for w in self.windows])

    def _average(self, data: torch.Tensor, x: Tensor, axes: tuple[int, ...]) -> torch.Tensor:
        margins = self._margins(x, axes)
        total = self._sums(pad_edges(data, margins, 0.0))
        if all(w.padding != "same" for w in self.windows):
            size = 1
            for w in self.windows:
                size *= w.size
            return total / size
        ones = torch.ones((1, 1, *data.shape[2:]), dtype=data.dtype, device=data.device)
        return total / self._sums(pad_edges(ones, margins, 0.0))

    def _sums(self, data: torch.Tensor) -> torch.Tensor:
        """Sums over the windows."""
        for axis, w in enumerate(self.windows, start=2):
            span = (w.size - 1) * w.dilation + 1
            data = data.unfold(axis, span, w.stride)[..., :: w.dilation].sum(-1)
        return data
