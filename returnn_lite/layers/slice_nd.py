"""Parts of an axis that differ per sequence: `slice_nd`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.lengths_layers import measured_axis
from returnn_lite.layers.slicing import with_axis
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL


@layer("slice_nd")
class SliceNd(Layer):
    """`size` frames from `start` on, per sequence.  Shape: (B, T, F), start (B,), size 3 -> (B, 3, F)

    `start`: a number (0 by default) or a layer (B, …); `size`: a number, a layer, a Dim, or None for all frames up to
    the end. Frames outside of the sequence (with a number as start: of the padded tensor), or from the sequence's own
    size on, are 0. `min_size`: least size where it is not a number. The sizes that a `length` layer gives make its
    axis.
    """

    recurrent = True

    def __init__(
        self,
        *,
        start: LayerRef | int | None = None,
        size: LayerRef | NaturalInt | Dim | None = None,
        min_size: NaturalInt | None = None,
        axis: AxisText = "T",
        out_spatial_dim: Dim | None = None,
    ) -> None:
        super().__init__()
        self.start = 0 if start is None else start
        self.size = size
        self.min_size = min_size
        self.axis = axis
        self.out_spatial_dim = out_spatial_dim
        self.size_node: Node | None = None  # where `size` comes from

    def link(self, net: Linker, node: Node) -> None:
        """Remembers where the sizes come from."""
        self.size_node = node.refs.get("size")

    def _order(self, x: Spec, start: Spec | None) -> tuple[int, ...]:
        """The axes of `start` in front, then the sliced one, then the others."""
        at = find_axis(x, self.axis)
        front = [i for d in (start.dims if start is not None else ()) for i in range(x.rank) if _same(x.dims[i], d)]
        if start is None and x.batch is not None:
            front = [x.batch]
        front = [i for i in front if i != at and x.dims[i] not in x.loop]
        return x.order(*front, at)

    def _out_dim(self) -> Dim:
        if isinstance(self.size, Dim):
            return self.axis_dim(self.out_spatial_dim, self.size)
        measured = measured_axis(self.size_node)
        return self.axis_dim(self.out_spatial_dim, self.sliced_time if measured is None else measured)

    @cached_property
    def sliced_time(self) -> Dim:
        """A new axis, found by "stag:sliced-time:<layer>"."""
        size = self.size if isinstance(self.size, int) else None
        return Dim(size, f"sliced-time:{self.name}", kind=SPATIAL)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axis behind those of `start`, with the new size."""
        x, start = sources[0], refs.get("start")
        if x is None or any(r is None for r in refs.values()):
            return None
        missing = [d for d in (start.dims if start is not None else ()) if not any(_same(d, o) for o in x.dims)]
        order = self._order(x, start)
        out = with_axis(x.permuted(order), order.index(find_axis(x, self.axis)), self._out_dim())
        for dim in reversed(missing):  # axes of `start` that the source lacks
            loop = out.loop | ({dim} & (start.loop if start is not None else frozenset()))
            time, feature = (None if p is None else p + 1 for p in (out.time, out.feature))
            out = Spec((dim, *out.dims), out.dtype, sparse_dim=out.sparse_dim, time=time, feature=feature, loop=loop)
        return out

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The picked frames."""
        x, start = sources[0], refs.get("start")
        spec = self.made_spec(x.spec, **{k: r.spec for k, r in refs.items()})
        old = find_axis(x.spec, self.axis)
        order = self._order(x.spec, start.spec if start is not None else None)
        lead = spec.rank - x.spec.rank  # axes that only `start` has
        at = lead + order.index(old)
        first = _spread(start, spec) if start is not None else torch.full((), int(self.start), device=x.device)
        ends = _ends(x, old, spec)
        count, frames = self._count(self._size_of(x, refs), first, ends, spec)
        position = torch.arange(frames, device=x.device).reshape((-1, *(1,) * (spec.rank - at - 1)))
        index = first + position
        inside = ends if start is not None else x.data.shape[old]
        valid = (index >= 0) & (index < inside) & (position < count)
        data = _picked(x.data.permute(order), index, at, lead, frames).masked_fill(~valid, 0)
        out = joined(x.data, x.spec, [x, *refs.values()])
        if spec.dims[at].dynamic and isinstance(count, torch.Tensor):
            axes = self._axes_of_count(x, old, spec, refs)
            values = count.reshape([count.shape[i] if count.dim() == spec.rank else 1 for i in axes]).to(torch.int32)
            out = out.with_lengths({spec.dims[at]: Lengths(values, frames, tuple(spec.dims[i] for i in axes))})
        return out.with_data(data, spec)

    def _size_of(self, x: Tensor, refs: Mapping[str, Tensor]) -> Tensor | None:
        """The sizes that a layer gives, or a Dim whose lengths are known."""
        dim = self.size
        if not isinstance(dim, Dim) or dim.size is not None:
            return refs.get("size")
        try:
            lengths = x.length(dim)
        except KeyError:
            return None
        if not _has_all(x.spec, lengths.dims):
            return None
        spec = Spec(lengths.dims, "int32", time=None, feature=None)
        return x.with_data(lengths.values, spec).with_lengths({dim: lengths})

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
        measured = self.size if isinstance(self.size, Dim) else measured_axis(self.size_node)
        if size is not None and measured is not None and measured in size.lengths and self.min_size is None:
            return count, size.lengths[measured].max  # known without waiting for the device
        return count, int(count.max()) if count.numel() else 0

    def _axes_of_count(self, x: Tensor, old: int, spec: Spec, refs: dict[str, Tensor]) -> list[int]:
        """The axes of the output that the sizes depend on."""
        dim = x.spec.dims[old]
        if "size" in refs:
            known: Sequence[Dim] = refs["size"].spec.dims
        else:
            starts = refs["start"].spec.dims if "start" in refs else ()
            known = (*starts, *(x.length(dim).dims if dim.dynamic else ()))
        return [i for i, d in enumerate(spec.dims) if any(_same(d, k) for k in known)]


def _picked(data: torch.Tensor, index: torch.Tensor, at: int, lead: int, frames: int) -> torch.Tensor:
    """The entries `index` of the axis `at`; `index` has `lead` axes more in front than `data`."""
    index = index.clamp(0, max(data.shape[at - lead] - 1, 0)).to(torch.int64)
    data = data.expand((*index.shape[:lead], *data.shape))
    return data.gather(at, index.expand([frames if i == at else n for i, n in enumerate(data.shape)]))


def _same(a: Dim, b: Dim) -> bool:
    return a == b or (a.is_batch and b.is_batch)


def _has_all(spec: Spec, dims: Sequence[Dim]) -> bool:
    return all(any(_same(d, s) for s in spec.dims) for d in dims)


def _spread(x: Tensor, spec: Spec) -> torch.Tensor:
    """The data of `x` shaped to broadcast against `spec`."""
    places = [next(i for i, s in enumerate(spec.dims) if _same(s, d)) for d in x.spec.dims]
    order = sorted(range(len(places)), key=lambda i: places[i])
    shape = [1] * spec.rank
    for i in order:
        shape[places[i]] = x.data.shape[i]
    return x.data.permute(order).reshape(shape)


def _ends(x: Tensor, axis: int, spec: Spec) -> torch.Tensor:
    """The lengths of an axis shaped to broadcast against `spec`; its size where no sequences are told apart."""
    dim = x.spec.dims[axis]
    lengths = x.length(dim) if dim.dynamic else None
    if lengths is None or not _has_all(spec, lengths.dims):
        return torch.full((), x.data.shape[axis], device=x.device)
    return _spread(x.with_data(lengths.values, Spec(lengths.dims, "int32", time=None, feature=None)), spec)
