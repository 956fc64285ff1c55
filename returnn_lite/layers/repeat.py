"""Repeating and resampling along an axis: `tile`, `repeat`, `resize`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch

from returnn_lite.config.option_types import NaturalInt, PositiveFloat, Rate
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.slicing import with_axis
from returnn_lite.ops.masked import frame_mask
from returnn_lite.ops.resampling import repeated, resample, stretch
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import joined, place
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.masked import mask


@layer("tile")
class Tile(Layer):
    """Static axes repeated as a whole.  Shape: (B, T, F), {"F": 2} -> (B, T, 2 F)

    `out_dims`: {axis: Dim of the larger one}.
    """

    def __init__(self, *, multiples: Mapping[AxisText, int], out_dims: Mapping[AxisText, Dim] | None = None) -> None:
        super().__init__()
        self.multiples = dict(multiples)
        self.out_dims = dict(out_dims or {})

    def _counts(self, x: Spec) -> dict[int, int]:
        counts = {find_axis(x, a, option="multiples"): n for a, n in self.multiples.items()}
        wrong = [x.dims[i] for i in counts if x.dims[i].size is None]
        if wrong:
            raise self.error(f"`multiples` must name static axes, but names {wrong[0]}; `repeat` repeats frames")
        return counts

    def spec(self, x: Spec | None) -> Spec | None:
        """The larger axes."""
        if x is None:
            return None
        given = {find_axis(x, a, option="out_dims"): dim for a, dim in self.out_dims.items()}
        for at, n in self._counts(x).items():
            x = with_axis(x, at, self.axis_dim(given.get(at), x.dims[at] * n))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """The repeated source."""
        counts = self._counts(x.spec)
        return x.with_data(x.data.repeat([counts.get(i, 1) for i in range(x.spec.rank)]), self.spec(x.spec))


class _AxisAfterBatch(Layer):
    """Base of layers that put the batch axis in front, then their axis, and change its size."""

    axis: Any

    def order(self, x: Spec) -> tuple[tuple[int, ...], int]:
        """The permutation, and the place of the axis in it."""
        at = find_axis(x, self.axis)
        front = [] if x.batch is None or x.batch == at else [x.batch]
        return x.order(*front, at), len(x.loop) + len(front)


@layer("repeat")
class Repeat(_AxisAfterBatch):
    """Each frame repeated.  Shape: (B, T, F), repetitions 2 -> (B, 2 T, F)

    `repetitions`: a number, or an int layer (T,), (B,) or (B, T): then the lengths are the sums over the valid frames,
    and 0 is appended. The axis comes right after batch.
    """

    recurrent = True

    def __init__(self, *, repetitions: LayerRef | NaturalInt, axis: AxisText) -> None:
        super().__init__()
        self.repetitions = repetitions
        self.axis = axis

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The longer axis."""
        if x is None or any(r is None for r in refs.values()):
            return None
        order, at = self.order(x)
        x = x.permuted(order)
        if isinstance(self.repetitions, int):
            return with_axis(x, at, self.axis_dim(self.options.out_dim, x.dims[at] * self.repetitions))
        return with_axis(x, at, self.axis_dim(self.options.out_dim, self.dim("repeat", None, SPATIAL)))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The repeated frames."""
        order, at = self.order(sources[0].spec)
        x = sources[0].permuted(order)
        spec = self.made_spec(sources[0].spec, **{k: r.spec for k, r in refs.items()})
        new, old = spec.dims[at], x.spec.dims[at]
        if isinstance(self.repetitions, int):
            x = x.with_lengths({new: x.length(old * self.repetitions)}) if new.dynamic else x
            return x.with_data(x.data.repeat_interleave(self.repetitions, at), spec)
        counts = self._counts(x, refs["repetitions"], at)
        index, total = repeated(counts)
        frames = index.shape[1]
        lead, tail = x.data.shape[:at], x.data.shape[at + 1 :]
        rows = index.reshape((*(1,) * (at - 1), *lead[-1:], frames))
        spread = rows.reshape((*rows.shape, *(1,) * len(tail)))
        data = x.data.gather(at, spread.expand((*lead, frames, *tail)))
        keep = frame_mask(total, frames).reshape(spread.shape)
        out = joined(x.data, x.spec, [x, refs["repetitions"]])
        dims = (x.spec.dims[at - 1],) if lead else ()
        lengths = Lengths(total.to(torch.int32) if lead else total[0].to(torch.int32), frames, dims)
        return out.with_lengths({new: lengths}).with_data(data.masked_fill(~keep, 0), spec, zero_padded=True)

    def _counts(self, x: Tensor, repetitions: Tensor, at: int) -> torch.Tensor:
        """Repetitions int64 [B, T] (or [1, T] without a batch axis), 0 after the sequence ends."""
        frames = Spec(x.spec.dims[max(at - 1, 0) : at + 1], "int32", time=None, feature=None)
        valid = mask(x, at)
        shape = x.data.shape[max(at - 1, 0) : at + 1]
        counts = place(repetitions, frames, self.behavior).expand(shape).to(torch.int64)
        counts = counts.reshape((-1, shape[-1]))
        return counts if valid is None else counts * valid.reshape((-1, shape[-1])).to(torch.int64)


_KINDS = ("nn", "nearest_neighbor", "linear", "cubic", "fill")


@layer("resize")
class Resize(_AxisAfterBatch):
    """An axis stretched by `factor`.  Shape: (B, T, F), 2 -> (B, 2 T, F); lengths ceil(len * factor)

    `kind` nn: frame floor(i n / n'); linear and cubic: position i n / n', over the padded tensor; fill: the frame, then
    `fill_value`s, of which in training each is left out at the rate `fill_dropout`, the same ones in all sequences. The
    axis comes right after batch.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        factor: LayerRef | PositiveFloat,
        axis: AxisText,
        kind: str = "nn",
        fill_value: float | None = None,
        fill_dropout: Rate | None = None,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.axis = axis
        self.kind = "nn" if kind == "nearest_neighbor" else kind
        self.fill_value = 0 if fill_value is None else fill_value
        if kind not in _KINDS:
            hint = did_you_mean(str(kind), _KINDS)
            raise self.error(f"`kind` must be one of {', '.join(_KINDS)}, but is {kind!r} instead{hint}")
        if fill_dropout and self.kind != "fill":
            raise self.error(f'`fill_dropout` needs `kind` "fill", but that is {kind!r}')
        self.fill_dropout = fill_dropout

    def _new_dim(self, dim: Dim) -> Dim:
        if self.fill_dropout:
            if dim.size is not None:
                raise self.error(f"`fill_dropout` needs an axis with lengths, but `axis` is {dim}")
            return self.axis_dim(self.options.out_dim, self.dim("resize", None, SPATIAL))
        if isinstance(self.factor, int):
            return self.axis_dim(self.options.out_dim, dim * self.factor)
        size = None if dim.size is None or isinstance(self.factor, str) else math.ceil(dim.size * self.factor)
        return self.axis_dim(self.options.out_dim, self.dim("resize", size, SPATIAL))

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The longer axis."""
        if x is None:
            return None
        order, at = self.order(x)
        x = x.permuted(order)
        return with_axis(x, at, self._new_dim(x.dims[at]))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The resampled source."""
        order, at = self.order(sources[0].spec)
        x, spec = sources[0].permuted(order), self.made_spec(sources[0].spec)
        factor = float(refs["factor"].data) if "factor" in refs else cast(float, self.factor)
        new, old, size = spec.dims[at], x.spec.dims[at], x.data.shape[at]
        target = size * factor if isinstance(factor, int) else math.ceil(size * factor)
        if new.dynamic:
            known = x.length(old) if old.dynamic else Lengths(torch.full((1,), size, device=x.device), size)
            scaled = (known.values * factor).ceil().to(torch.int32)
            x = x.with_lengths({new: Lengths(scaled, target, known.dims)})
        if self.kind == "fill":
            filled = x.with_data(self._filled(x.data, at, factor), spec)
            return self._thinned(filled, at, int(factor)) if self.fill_dropout and self.training else filled
        return x.with_data(resample(x.data, at, target, self.kind), spec)

    def _filled(self, data: torch.Tensor, at: int, factor: float) -> torch.Tensor:
        if factor != int(factor) or factor < 1:
            raise self.error(f'`factor` must be a whole number for kind "fill", but is {factor} instead')
        return stretch(data, at, int(factor), self.fill_value)

    def _thinned(self, x: Tensor, at: int, factor: int) -> Tensor:
        """Some of the frames between the source's left out."""
        dim, size = x.spec.dims[at], x.data.shape[at]
        drawn = torch.rand(size, generator=self.context.generator, device=x.device) >= (self.fill_dropout or 0)
        keep = drawn | (torch.arange(size, device=x.device) % factor == 0)
        before = torch.cat([keep.new_zeros(1), keep]).cumsum(0).to(torch.int32)
        old = x.length(dim)
        rows = keep.nonzero().reshape(-1)
        lengths = Lengths(before[old.values.to(torch.int64)], len(rows), old.dims)
        return x.with_lengths({dim: lengths}).with_data(x.data.index_select(at, rows))
