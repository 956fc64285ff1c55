"""Parts of an axis: `slice`, `shift_axis`."""

from __future__ import annotations

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import FEATURE, SPATIAL


def with_axis(x: Spec, at: int, dim: Dim) -> Spec:
    """`x` with another Dim at this position, in the same roles."""
    dims = [dim if i == at else d for i, d in enumerate(x.dims)]
    return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=x.time, feature=x.feature, loop=x.loop)


def kind_of(x: Spec, at: int) -> str:
    """The kind that a new Dim in place of this axis has."""
    return FEATURE if at == x.feature else SPATIAL


@layer("slice")
class Slice(Layer):
    """The Python slice [start : end : step] of an axis.  Shape: (B, T, F), "T", start 1 -> (B, T - 1, F)

    Lengths: start a: max(len - a, 0); end -b: max(len - b, 0), though the padded axis is cut at its end, not each
    sequence; end e >= 0: the axis becomes static; step s: ceil(len / |s|).
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        axis: AxisText,
        slice_start: int | None = None,
        slice_end: int | None = None,
        slice_step: int | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.start = slice_start or 0
        self.end = slice_end
        self.step = 1 if slice_step is None else slice_step
        if self.start < 0:
            raise self.error(f"`slice_start` must not be negative, but is {slice_start} instead")
        if self.step == 0:
            raise self.error("`slice_step` must not be 0")

    def is_recurrent(self) -> bool:
        """Not along the features."""
        return not (isinstance(self.axis, str) and self.axis.lower() in ("f", "feature"))

    def _slice(self) -> slice:
        return slice(self.start or None if self.step < 0 else self.start, self.end, self.step)

    def _out_dim(self, x: Spec, at: int) -> Dim:
        return self.axis_dim(self.options.out_dim, self._sliced(x, at))

    def _sliced(self, x: Spec, at: int) -> Dim:
        dim = x.dims[at]
        if dim.size is not None or dim.is_batch:
            size = len(range(dim.size or 0)[self._slice()])
            return dim if size == dim.size else self.dim("slice", size, kind_of(x, at))
        if self.end is not None and self.end >= 0:
            size = len(range(self.end)[slice(self.start, None, abs(self.step))])
            return self.dim("slice-end", size, kind_of(x, at))
        if self.start:
            dim = (dim - self.start).named(f"{-self.start}+{dim.name}")
        if self.end is not None:
            dim = dim - -self.end
        return dim.ceildiv(abs(self.step))

    def spec(self, x: Spec | None) -> Spec | None:
        """The axis with its new size or lengths."""
        if x is None:
            return None
        at = find_axis(x, self.axis)
        return with_axis(x, at, self._out_dim(x, at))

    def forward(self, x: Tensor) -> Tensor:
        """The sliced source."""
        at = find_axis(x.spec, self.axis)
        spec = self.made_spec(x.spec)
        dim = spec.dims[at]
        if self.step > 0:
            picked = (*(slice(None),) * at, self._slice())
            data = x.data[picked]
        else:
            index = torch.arange(x.data.shape[at], device=x.device)[list(range(x.data.shape[at])[self._slice()])]
            data = x.data.index_select(at, index)
        missing = 0 if dim.size is None else dim.size - data.shape[at]
        if missing > 0:  # a static end behind the longest sequence
            data = torch.cat([data, data.new_zeros((*data.shape[:at], missing, *data.shape[at + 1 :]))], at)
        return x.with_data(data, spec)


@layer("shift_axis")
class ShiftAxis(Layer):
    """An axis shifted by `amount` frames: to the right if positive.  Shape: (B, T, F) -> (B, T, F)

    `pad`: the size stays, `pad_value` moves in; else the axis gets shorter. `adjust_size_info`: the lengths change too:
    len + amount (to the right without `pad`: len), at most the new size.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self, *, axis: AxisText, amount: int, pad: bool = True, pad_value: float = 0, adjust_size_info: bool = True
    ) -> None:
        super().__init__()
        self.axis = axis
        self.amount = amount
        self.pad = pad
        self.pad_value = pad_value
        self.adjust_size_info = adjust_size_info
        if not isinstance(amount, int) or amount == 0:
            raise self.error(f"`amount` must be a number other than 0, but is {amount!r} instead")

    def _keeps_axis(self, x: Spec, at: int) -> bool:
        """Whether the Dim stays."""
        return self.pad and (not x.dims[at].dynamic or not self.adjust_size_info)

    def spec(self, x: Spec | None) -> Spec | None:
        """The axis with its new lengths."""
        if x is None:
            return None
        at = find_axis(x, self.axis)
        if self._keeps_axis(x, at):
            return x
        size = x.dims[at].size
        new = None if size is None else max(size - abs(self.amount), 0)
        return with_axis(x, at, self.dim("shift_axis", new, kind_of(x, at), "_"))

    def forward(self, x: Tensor) -> Tensor:
        """The shifted source."""
        at = find_axis(x.spec, self.axis)
        size = x.data.shape[at]
        step = min(abs(self.amount), size)
        kept = x.data.narrow(at, 0 if self.amount > 0 else step, size - step)
        if self.pad:
            shape = [step if i == at else n for i, n in enumerate(x.data.shape)]
            filler = x.data.new_full(shape, self.pad_value)
            kept = torch.cat([filler, kept] if self.amount > 0 else [kept, filler], at)
        spec = self.made_spec(x.spec)
        if x.spec.dims[at].dynamic and not self._keeps_axis(x.spec, at):
            x = x.with_lengths({spec.dims[at]: self._lengths(x.length(x.spec.dims[at]), kept.shape[at])})
        return x.with_data(kept, spec)

    def _lengths(self, old: Lengths, size: int) -> Lengths:
        change = 0
        if self.adjust_size_info:
            change = self.amount if self.amount < 0 or self.pad else 0
        return Lengths((old.values + change).clamp(0, size), size, old.dims)
