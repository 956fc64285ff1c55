"""Parts of an axis: `slice`, `slice_nd`, `shift_axis`."""

from __future__ import annotations

from typing import Any

import torch

from returnn_lite.layers.base import Layer, LayerRef
from returnn_lite.layers.lengths_layers import measured_axis
from returnn_lite.layers.registry import layer
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import joined
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
        dim = x.dims[at]
        if isinstance(self.options.out_dim, Dim):
            return self.options.out_dim
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

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axis with its new size or lengths."""
        x = sources[0]
        if x is None:
            return None
        at = find_axis(x, self.axis)
        return with_axis(x, at, self._out_dim(x, at))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The sliced source."""
        x = sources[0]
        at = find_axis(x.spec, self.axis)
        spec = self.spec(x.spec)
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
        if dim.dynamic and isinstance(self.options.out_dim, Dim):
            x = x.with_lengths({dim: self._lengths(x, at)})
        return x.with_data(data, spec)

    def _lengths(self, x: Tensor, at: int) -> Lengths:
        dim = x.spec.dims[at] - self.start
        return x.length((dim + (self.end or 0)).ceildiv(abs(self.step)))


@layer("slice_nd")
class SliceNd(Layer):
    """`size` frames from `start` on, per sequence.  Shape: (B, T, F), start (B,), size 3 -> (B, 3, F)

    `start`: a number or a layer (B, …); `size`: a number, a layer, a Dim, or None for all frames up to the end. Frames
    outside of the sequence, or from the sequence's own size on, are 0. `min_size`: least size where it is not a number.
    The sizes that a `length` layer gives make its axis.
    """

    recurrent = True

    def __init__(
        self,
        *,
        start: LayerRef | int,
        size: LayerRef | int | Dim | None = None,
        min_size: int | None = None,
        axis: AxisText = "T",
        out_spatial_dim: Dim | None = None,
    ) -> None:
        super().__init__()
        self.start = start
        self.size = size
        self.min_size = min_size
        self.axis = axis
        self.out_spatial_dim = out_spatial_dim
        self.__dict__["size_node"] = None  # where `size` comes from

    def link(self, net: Any, node: Any) -> None:
        """Remembers where the sizes come from."""
        self.__dict__["size_node"] = node.refs.get("size")

    def _order(self, x: Spec, start: Spec | None) -> tuple[int, ...]:
        """The axes of `start` in front, then the sliced one, then the others."""
        at = find_axis(x, self.axis)
        front = [i for d in (start.dims if start is not None else ()) for i in range(x.rank) if _same(x.dims[i], d)]
        if start is None and x.batch is not None:
            front = [x.batch]
        front = [i for i in front if i != at and x.dims[i] not in x.loop]
        return x.order(*front, at)

    def _out_dim(self) -> Dim:
        given = self.out_spatial_dim or (self.size if isinstance(self.size, Dim) else None)
        if given is not None:
            return given
        size = self.size if isinstance(self.size, int) else None
        return measured_axis(self.__dict__["size_node"]) or self.dim("sliced-time", size, SPATIAL)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axis behind those of `start`, with the new size."""
        x, start = sources[0], refs.get("start")
        if x is None or any(r is None for r in refs.values()):
            return None
        missing = [d for d in (start.dims if start is not None else ()) if not any(_same(d, o) for o in x.dims)]
        order = self._order(x, start)
        at = order.index(find_axis(x, self.axis))
        out = with_axis(x.permuted(order), at, self._out_dim())
        for dim in reversed(missing):  # axes of `start` that the source lacks
            loop = out.loop | ({dim} & (start.loop if start is not None else frozenset()))
            time, feature = (None if p is None else p + 1 for p in (out.time, out.feature))
            out = Spec((dim, *out.dims), out.dtype, sparse_dim=out.sparse_dim, time=time, feature=feature, loop=loop)
        return out

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The picked frames."""
        x = sources[0]
        start, size = refs.get("start"), refs.get("size")
        spec = self.spec(x.spec, **{k: r.spec for k, r in refs.items()})
        dim = x.spec.dims[find_axis(x.spec, self.axis)]
        source = x.permuted(self._order(x.spec, start.spec if start is not None else None))
        at = source.spec.rank - (spec.rank - spec.dims.index(self._out_dim()))
        first = _spread(start, spec) if start is not None else torch.tensor(int(self.start), device=x.device)
        ends = _lengths_like(x, dim, spec)
        count, frames = self._count(size, first, ends, spec)
        position = torch.arange(frames, device=x.device)
        position = position.reshape((-1, *(1,) * (source.spec.rank - at - 1)))
        index = first + position
        valid = (index >= 0) & (index < ends) & (position < count)
        lead = spec.rank - source.spec.rank
        data = source.data.expand((*valid.shape[:lead], *source.data.shape)) if lead else source.data
        index = index.clamp(0, max(source.data.shape[at] - 1, 0)).to(torch.int64)
        sizes = [n if i != at + lead else frames for i, n in enumerate(data.shape)]
        data = data.gather(at + lead, index.expand(sizes)).masked_fill(~valid, 0)
        out = joined(source.data, source.spec, [x, *refs.values()])
        new = spec.dims[at + lead]
        if new.dynamic and isinstance(count, torch.Tensor):
            dims = tuple(d for i, d in enumerate(spec.dims[: at + lead]) if i < count.dim() and count.shape[i] != 1)
            values = count.reshape([n for n in count.shape if n != 1] or [1]).to(torch.int32)
            out = out.with_lengths({new: Lengths(values, frames, dims or (spec.dims[0],))})
        return out.with_data(data, spec)

    def _count(
        self, size: Tensor | None, first: torch.Tensor, ends: torch.Tensor, spec: Spec
    ) -> tuple[torch.Tensor | int, int]:
        """Frames per sequence, and their maximum."""
        if isinstance(self.size, int):
            return self.size, self.size
        if isinstance(self.size, Dim) and self.size.size is not None:
            return self.size.size, self.size.size
        count = _spread(size, spec) if size is not None else (ends - first).clamp(min=0)
        if self.min_size is not None:
            count = count.clamp(min=self.min_size)
        measured = measured_axis(self.__dict__["size_node"])
        if size is not None and measured in size.lengths and self.min_size is None:
            return count, size.lengths[measured].max  # known without waiting for the device
        return count, int(count.max()) if count.numel() else 0


def _same(a: Dim, b: Dim) -> bool:
    return a == b or (a.is_batch and b.is_batch)


def _spread(x: Tensor, spec: Spec) -> torch.Tensor:
    """The data of `x` shaped to broadcast against `spec`."""
    places = [next(i for i, s in enumerate(spec.dims) if _same(s, d)) for d in x.spec.dims]
    order = sorted(range(len(places)), key=lambda i: places[i])
    shape = [1] * spec.rank
    for i in order:
        shape[places[i]] = x.data.shape[i]
    return x.data.permute(order).reshape(shape)


def _lengths_like(x: Tensor, dim: Dim, spec: Spec) -> torch.Tensor:
    """The lengths of `dim` shaped to broadcast against `spec`."""
    if not dim.dynamic:
        return torch.tensor(x.size(dim), device=x.device)
    lengths = x.length(dim)
    return _spread(x.with_data(lengths.values, Spec(lengths.dims, "int32", time=None, feature=None)), spec)


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

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axis with its new lengths."""
        x = sources[0]
        if x is None:
            return None
        at = find_axis(x, self.axis)
        if self._keeps_axis(x, at):
            return x
        size = x.dims[at].size
        new = None if size is None else max(size - abs(self.amount), 0)
        return with_axis(x, at, self.dim("shift_axis", new, kind_of(x, at), "_"))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The shifted source."""
        x = sources[0]
        at = find_axis(x.spec, self.axis)
        size = x.data.shape[at]
        step = min(abs(self.amount), size)
        kept = x.data.narrow(at, 0 if self.amount > 0 else step, size - step)
        if self.pad:
            shape = [step if i == at else n for i, n in enumerate(x.data.shape)]
            filler = x.data.new_full(shape, self.pad_value)
            kept = torch.cat([filler, kept] if self.amount > 0 else [kept, filler], at)
        spec = self.spec(x.spec)
        if x.spec.dims[at].dynamic and not self._keeps_axis(x.spec, at):
            x = x.with_lengths({spec.dims[at]: self._lengths(x.length(x.spec.dims[at]), kept.shape[at])})
        return x.with_data(kept, spec)

    def _lengths(self, old: Lengths, size: int) -> Lengths:
        change = 0
        if self.adjust_size_info:
            change = self.amount if self.amount < 0 or self.pad else 0
        return Lengths((old.values + change).clamp(0, size), size, old.dims)
