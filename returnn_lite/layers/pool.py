"""`pool`: the largest or the mean value in sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.spatial import (
    channels_first,
    channels_last,
    moved_axes,
    ragged,
    spatial_axes,
    window_spec,
    windows,
)
from returnn_lite.ops.convolution import average_pool, max_pool
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.masked import fill_padding


@layer("pool")
class Pool(Layer):
    """Max or average pooling over the spatial axes.  Shape: (B, T, F) -> (B, T', F); lengths as for convolutions.

    `padding`: "valid", "same", "same_static" (zeros, also for max) or a number. Max: "same" padding never wins.
    Average, "same": divided by the number of positions inside the padded tensor. Frames after a sequence end count
    as they are, unless `use_time_mask`. `out_spatial_dims`: Dims of the resulting spatial axes.
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
        out_spatial_dims: Sequence[Dim] | None = None,
        use_time_mask: bool = False,
        use_channel_first: bool | None = None,
    ) -> None:
        super().__init__()
        if mode.lower() not in ("max", "avg"):
            raise self.error(f'`mode` must be "max" or "avg", but is {mode!r} instead')
        self.mode = mode.lower()
        self.windows = windows(pool_size, pool_size if strides is None else strides, dilation_rate, padding)
        self.in_spatial_dims = in_spatial_dims
        self.out_spatial_dims = out_spatial_dims
        self.use_time_mask = use_time_mask
        if not 1 <= len(self.windows) <= 3:
            raise self.error(f"`pool_size` must have 1 to 3 entries, but has {len(self.windows)} instead")

    @property
    def trivial(self) -> bool:
        """Whether every window is one position, and nothing is renamed."""
        return self.out_spatial_dims is None and all(w.size == 1 and w.stride == 1 for w in self.windows)

    def spec(self, x: Spec | None) -> Spec | None:
        """Batch axes, spatial axes with new lengths, features."""
        if x is None or self.trivial:
            return x
        axes = self._axes(x)
        feature = None if x.feature is None or x.feature in axes else x.dims[x.feature]
        return window_spec(x, axes, moved_axes(self, x, axes, self.windows, "conv:s"), feature)

    def _apart(self) -> bool:
        """Whether what lies behind the new ends comes from padding alone: 0 stays 0."""
        pairs = all(w.padding == "same" and w.stride == w.size <= 2 and w.dilation == 1 for w in self.windows)
        return pairs and not self.use_time_mask

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
        dynamic = ragged(x, axes)
        if self.mode == "max":
            static = self.windows[0].padding == "same_static"
            pooled = max_pool(data, self.windows, ragged=dynamic, fill=0.0 if static else float("-inf"))
        else:
            inside = any(w.padding == "same" for w in self.windows)
            pooled = average_pool(data, self.windows, ragged=dynamic, count_margins=not inside)
        data = channels_last(pooled, lead, x.spec.feature not in (None, *axes))
        return x.with_data(data, self.spec(x.spec), zero_padded=x.zero_padded and self._apart())
