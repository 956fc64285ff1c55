"""Sliding windows as a new axis, and back: `window`, `fold`."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, State, Stateful, Tick, is_frame
from returnn_lite.ops.resampling import pad
from returnn_lite.ops.windows import centred, overlap_add, sliding
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.masked import mask


@layer("window")
class Window(Stateful):
    """At each position the frames around it, as a new axis.  Shape: (B, T, F), size 3 -> (B, T, 3, F)

    out[t, w] = x[t * stride - left + w], 0 outside of the padded tensor. "same": right = size // 2, left the rest,
    unless `window_left` or `window_right` says otherwise; lengths ceil(len / stride). "valid": left 0, windows inside
    only. From behaviour version 18 the axes are (W, T, B, F), with a stride (T, W, B, F). In a loop, over its axis
    (`axis` is that Dim, `single_step_dim`, or the source has no time axis): (B, F) -> (B, W, F), the current frame and
    those before it, so `window_right` must be 0.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        window_size: PositiveInt | None = None,
        window_dim: Dim | None = None,
        window_left: int | None = None,
        window_right: int | None = None,
        axis: AxisText = "T",
        out_spatial_dim: Dim | None = None,
        padding: str = "same",
        stride: PositiveInt = 1,
    ) -> None:
        super().__init__()
        size = window_size if window_dim is None else window_dim.size
        if not isinstance(size, int) or size < 1:
            raise self.error(f"`window_size` (or `window_dim`) must be a positive number, but is {size!r} instead")
        if padding.lower() not in ("same", "valid"):
            hint = did_you_mean(padding, ["same", "valid"])
            raise self.error(f'`padding` must be "same" or "valid", but is {padding!r} instead{hint}')
        self.size = size
        self.window_dim = window_dim
        self.axis = axis
        self.out_spatial_dim = out_spatial_dim
        self.valid = padding.lower() == "valid"
        self.stride = stride
        self.left = self._left(window_left, window_right)
        self.in_loop = False

    def link(self, net: Linker, node: Node) -> None:
        """Notes whether there is a loop around it."""
        self.in_loop = net.inside_loop

    def _left(self, left: int | None, right: int | None) -> int:
        """Frames before the present one."""
        if self.valid:
            if left is not None or right is not None:
                raise self.error('`window_left` and `window_right` need padding "same"')
            return 0
        if left is not None and right is not None and left + right + 1 != self.size:
            text = f"`window_left` + `window_right` + 1 must be {self.size}"
            raise self.error(f"{text}, but is {left + right + 1} instead")
        if left is None:
            left = centred(self.size)[0] if right is None else self.size - 1 - right
        if not 0 <= left < self.size:
            raise self.error(f"the frames before the current one must be in [0, {self.size}), but are {left} instead")
        return left

    def _out_dim(self, dim: Dim) -> Dim:
        return self.axis_dim(self.out_spatial_dim, self._steps(dim))

    def _steps(self, dim: Dim) -> Dim:
        """The positions at which there is a window."""
        return dim.window(self.size, self.stride) if self.valid else dim.ceildiv(self.stride)

    def _order(self, x: Spec) -> tuple[tuple[int, ...], int]:
        """The source's axes before the windows are made: batch in front, or (from version 18) time in front."""
        at = find_axis(x, self.axis)
        front = [i for i in (x.batch,) if i is not None and i != at]
        order = x.order(at, *front) if self.behavior >= 18 else x.order(*front)
        return order, order.index(at)

    @property
    def _new_dim(self) -> Dim:
        return self.window_dim or self.dim("window", self.size, SPATIAL)

    def spec(self, x: Spec | None) -> Spec | None:
        """The window axis behind the axis (or, from version 18 without a stride, before it)."""
        if x is None:
            return None
        if self._is_frame(x):
            return self._step_spec(x)
        order, at = self._order(x)
        x = x.permuted(order)
        new, kept = self._new_dim, self._out_dim(x.dims[at])
        pair = (new, kept) if self._first() else (kept, new)
        dims = (*x.dims[:at], *pair, *x.dims[at + 1 :])
        time: Any = at + (1 if self._first() else 0) if x.time == at else None
        feature = None if x.feature is None else x.feature + (1 if x.feature > at else 0)
        if x.feature == at:
            feature = at + (1 if self._first() else 0)
        if time is None and x.time is not None:
            time = x.time + (1 if x.time > at else 0)
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=time, feature=feature, loop=x.loop)

    def _first(self) -> bool:
        """Whether the window axis comes before the axis."""
        return self.behavior >= 18 and self.stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """The windows."""
        if self._is_frame(x.spec):
            raise self.error("a single frame has no frames before it outside of loops")
        order, at = self._order(x.spec)
        spec = self.spec(x.spec)
        data = x.data.permute(order)
        data = sliding(data, at, self.size, self.stride, (self.left, self._right))
        data = data.movedim(-1, at if self._first() else at + 1)
        return x.with_data(data, spec)

    # --- in a loop over the axis --------------------------------------------------------------------------------------

    @property
    def _right(self) -> int:
        """Frames behind the present one."""
        return 0 if self.valid else self.size - 1 - self.left

    def _is_frame(self, x: Spec) -> bool:
        return self.in_loop and is_frame(x, self.axis)

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the loop goes over the axis."""
        return self.in_loop and all(s is None or self._is_frame(s) for s in sources)

    def _step_spec(self, x: Spec) -> Spec:
        """The window axis behind the batch axis."""
        if self.valid or self._right or self.stride != 1:
            text = 'needs `window_right` 0, `padding` "same" and no stride'
            raise self.error(f"in a loop over the axis a window sees no later frames: it {text}")
        at = self._step_axis(x)
        return x.with_dims((*x.dims[:at], self._new_dim, *x.dims[at:]))

    @staticmethod
    def _step_axis(x: Spec) -> int:
        return 0 if x.batch is None else x.batch + 1

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The windows of all ticks."""
        x = self.run_input(sources)
        at, bare = x.spec.dims.index(dim), x.spec.in_loop(dim)
        data = sliding(x.data.movedim(at, 0), 0, self.size, 1, (self.left, 0))
        return x.with_data(data.movedim(-1, self._step_axis(bare) + 1), self._step_spec(bare).with_loop(dim))

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The present frame behind those before it."""
        x = self.run_input(sources)
        at = self._step_axis(x.spec)
        batch = max(at - 1, 0)
        frame = x.data.unsqueeze(at)
        if "frames" in state:
            before = state["frames"].movedim(0, batch).narrow(at, 1, self.size - 1)
        else:
            before = torch.zeros_like(frame).repeat_interleave(self.size - 1, at)
        frames = torch.cat([before, frame], at)
        return x.with_data(frames, self.spec(x.spec)), {"frames": frames.movedim(batch, 0)}


@layer("fold")
class Fold(Layer):
    """Overlapping windows recombined, the inverse of `window`.  Shape: (B, T, W, F) -> (T, B, F)

    Frame t gets the sum (`mode` "sum") or the mean over all windows that hold it; windows after the sequence end do
    not count. `padding` and `stride` as they were for `window`; with a stride the output has len * stride frames.
    """

    recurrent = True

    def __init__(
        self,
        *,
        mode: str,
        in_spatial_dim: AxisText,
        window_dim: AxisText,
        out_spatial_dim: Dim | None = None,
        padding: str = "same",
        stride: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if mode not in ("sum", "mean"):
            raise self.error(f'`mode` must be "sum" or "mean", but is {mode!r} instead')
        self.mode = mode
        self.in_spatial_dim = in_spatial_dim
        self.window_dim = window_dim
        self.out_spatial_dim = out_spatial_dim
        if padding.lower() not in ("same", "valid"):
            raise self.error(f'`padding` must be "same" or "valid", but is {padding!r} instead')
        self.valid = padding.lower() == "valid"
        self.stride = stride

    def _axes(self, x: Spec) -> tuple[int, int]:
        return (
            find_axis(x, self.in_spatial_dim, option="in_spatial_dim"),
            find_axis(x, self.window_dim, option="window_dim"),
        )

    def _out_dim(self, x: Spec) -> Dim:
        time, window = self._axes(x)
        return self.axis_dim(self.out_spatial_dim, self._frames(x.dims[time], x.dims[window].size or 1))

    def _frames(self, dim: Dim, size: int) -> Dim:
        """The frames that the windows cover."""
        return (dim - 1) * self.stride + size if self.valid else dim * self.stride

    def spec(self, x: Spec | None) -> Spec | None:
        """Time in front, then the other axes."""
        if x is None:
            return None
        time, window = self._axes(x)
        order = [i for i in x.order(time) if i != window]
        dims = [self._out_dim(x) if i == time else x.dims[i] for i in order]
        feature = order.index(x.feature) if x.feature in order else None
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=len(x.loop), feature=feature, loop=x.loop)

    def forward(self, x: Tensor) -> Tensor:
        """The sums or means of the overlaps."""
        time, window = self._axes(x.spec)
        size = x.data.shape[window]
        steps = x.data.shape[time]
        left = 0 if self.valid else centred(size)[0]
        valid = mask(x, time)
        ones = x.data.new_ones([n if i in (time, window) else 1 for i, n in enumerate(x.data.shape)])
        data, count = x.data, ones if valid is None else ones * valid
        if valid is not None:
            data = data.masked_fill(~valid, 0)
        front = x.spec.order(time, window)
        at = len(x.spec.loop)
        data, count = (overlap_add(t.permute(front), at, self.stride) for t in (data, count))
        if self.mode == "mean":
            data = data / count.clamp(min=1)
        frames = data.shape[at] if self.valid else steps * self.stride
        data = data.narrow(at, left, min(frames, max(data.shape[at] - left, 0)))
        if data.shape[at] < frames:
            data = pad(data, at, 0, frames - data.shape[at])
        return x.with_data(data, self.spec(x.spec))
