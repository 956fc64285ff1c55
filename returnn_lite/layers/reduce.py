"""Reducing axes: `reduce`."""

from __future__ import annotations

from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.reductions import MODES, reduce
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.masked import mask_all

Axes = tuple[int, ...]


@layer("reduce")
class Reduce(Layer):
    """`mode` over `axes`.  Shape: (B, T, F), "T" -> (B, F)

    Modes: max, min, sum, mean or avg, logsumexp, argmax, argmin, any, all. Frames after the sequence ends do not
    count, unless `use_time_mask` is False; the mean divides by the true number of frames (at least 1). arg*: one axis;
    int32 indices, whose classes are that axis if it is static. Dense sources only.
    """

    def __init__(
        self,
        *,
        mode: str,
        axes: AxisText = None,
        axis: AxisText = None,
        keep_dims: bool = False,
        enforce_batch_dim_axis: int | None = None,
        use_time_mask: bool | None = None,
    ) -> None:
        super().__init__()
        self.mode = "mean" if mode == "avg" else mode
        self.axes = axis if axes is None else axes
        self.keep_dims = keep_dims
        self.batch_at = enforce_batch_dim_axis
        self.use_time_mask = use_time_mask
        if self.mode not in MODES:
            known = [*MODES, "avg"]
            hint = did_you_mean(str(mode), known)
            raise self.error(f"`mode` must be one of {', '.join(known)}, but is {mode!r} instead{hint}")
        if self.axes is None or (axes is not None and axis is not None):
            raise self.error("needs one of the options `axis` and `axes`")
        if self.batch_at is None and has_int(self.axes):
            self.batch_at = 0

    def is_recurrent(self) -> bool:
        """Not over features or static axes."""
        return not (isinstance(self.axes, str) and self.axes.lower().split(":")[0] in ("f", "feature", "static"))

    def _axes(self, x: Spec) -> Axes:
        found = find_axes(x, self.axes, option="axes")
        if not found:
            raise self.error(f"`axes` {self.axes!r} names no axis of the source {describe(x)}")
        if self.mode.startswith("arg") and len(found) > 1:
            raise self.error(f"{self.mode} needs one axis, but {self.axes!r} names {len(found)} of {describe(x)}")
        return found

    def spec(self, x: Spec | None) -> Spec | None:
        """The source without the axes (or with axes of size 1)."""
        if x is None:
            return None
        if x.sparse:
            raise self.error(f"the source must be dense, but is {x} instead")
        x = x.permuted(ordered(x, self.batch_at))
        found = self._axes(x)
        if self.keep_dims:
            dims = [self.dim(f"keep-dim-{i}", 1, d.kind) if i in found else d for i, d in enumerate(x.dims)]
            out = x.with_dims(dims, time=x.time, feature=x.feature)
            out = out if x.time is not None else out.roles(time=None)
        else:
            out = x.without(found)
        if not self.mode.startswith("arg"):
            return out
        classes = x.dims[found[0]]
        return out.with_dtype("int32", None if classes.dynamic else classes)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The reduced source."""
        x = sources[0].permuted(ordered(sources[0].spec, self.batch_at))
        found = self._axes(x.spec)
        masked = self.use_time_mask is not False
        valid = mask_all(x, [i for i in found if x.spec.dims[i].dynamic]) if masked else None
        data = reduce(x.data, self.mode, found, valid, keepdim=self.keep_dims)
        return x.with_data(data, self.spec(sources[0].spec))


def has_int(axes: AxisText) -> bool:
    """Whether an axis is given as a number."""
    several = axes if isinstance(axes, (list, tuple, set)) else (axes,)
    return any(isinstance(a, int) and not isinstance(a, bool) for a in several)


def ordered(x: Spec, batch_at: int | None) -> Axes:
    """The permutation that puts the batch axis to this position (None: as it is), behind loop axes."""
    if batch_at is None or x.batch is None:
        return tuple(range(x.rank))
    order = [i for i in x.order() if i != x.batch]
    order.insert(len(x.loop) + batch_at, x.batch)
    return tuple(order)
