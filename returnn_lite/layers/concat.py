"""Putting tensors together and apart along an axis: `concat`, `stack`, `split`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.slicing import kind_of, with_axis
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.align import common, joined, place, sizes
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL


@layer("concat")
class Concat(Layer):
    """The sources one after the other along an axis of each.  Shape: (B, T, F), (B, S, F) -> (B, T + S, F)

    `from` is a list of pairs (layer, axis). Lengths add up, but the padded tensors are put together as they are. All
    other axes must be the same, unless `allow_broadcast`. (`axes` holds the pairs, after parsing.)
    """

    sources = "many"
    recurrent = True
    lets_padding_through = True

    def __init__(self, *, axes: Sequence[AxisText] = (), allow_broadcast: bool = False) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self.allow_broadcast = allow_broadcast
        self.marker = Dim(-1, "concat")

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Parts the pairs in `from`."""
        pairs = description.get("from") or ()
        if not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in pairs) or isinstance(pairs, str):
            return description
        return {**description, "from": [p[0] for p in pairs], "axes": [p[1] for p in pairs]}

    def _positions(self, specs: Sequence[Spec]) -> list[int]:
        if len(self.axes) != len(specs) or not specs:
            raise self.error('`from` must be a list of pairs (layer, axis), e.g. [("a", "T"), ("b", "T")]')
        return [find_axis(s, a, option="from") for s, a in zip(specs, self.axes, strict=True)]

    def _layout(self, specs: Sequence[Spec]) -> tuple[Spec, list[Spec]]:
        """The common layout with a marker for the axis, and that of each source."""
        at = self._positions(specs)
        marked = [with_axis(s, i, self.marker) for s, i in zip(specs, at, strict=True)]
        layout = common(tuple(marked), self.behavior)
        for spec, whole in zip(marked, specs, strict=True):
            if spec.rank - len(spec.loop) != layout.rank - len(layout.loop) and not self.allow_broadcast:
                text = f"all sources must have the axes {layout}, but one is {whole}"
                raise self.error(f"{text}; `allow_broadcast` repeats it")
        return layout, [with_axis(layout, self._at(layout), s.dims[i]) for s, i in zip(specs, at, strict=True)]

    def _at(self, layout: Spec) -> int:
        return layout.dims.index(self.marker)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The sum of the axes."""
        known = [s for s in sources if s is not None]
        if len(known) < len(sources) or not known:
            return None
        layout, _ = self._layout(known)
        dims = [s.dims[i] for s, i in zip(known, self._positions(known), strict=True)]
        return with_axis(layout, self._at(layout), self.axis_dim(self.options.out_dim, reduce(add, dims)))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The concatenated sources."""
        specs = [x.spec for x in sources]
        layout, layouts = self._layout(specs)
        at = self._at(layout)
        whole = sizes(with_axis(layout, at, layouts[0].dims[at]), sources)
        parts = []
        for x, placed, i in zip(sources, layouts, self._positions(specs), strict=True):
            target = [x.data.shape[i] if j == at else n for j, n in enumerate(whole)]
            parts.append(place(x, placed, self.behavior).expand(target))
        spec = self.made_spec(*specs)
        out = joined(parts[0], layouts[0], sources)
        return out.with_data(torch.cat(parts, at), spec)


@layer("stack")
class Stack(Layer):
    """The sources side by side along a new axis.  Shape: (B, T, F), (B, T, F) -> (B, T, 2, F)

    The new axis follows the last spatial one, or at position `axis` of the output.
    """

    sources = "many"

    def __init__(self, *, axis: int | None = None, out_spatial_dim: Dim | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.out_spatial_dim = out_spatial_dim

    def _place(self, layout: Spec) -> int:
        if self.axis is not None:
            visible = layout.rank - len(layout.loop) + 1
            if not isinstance(self.axis, int) or not -visible <= self.axis < visible:
                raise self.error(f"`axis` must be a position in the output, but is {self.axis!r}; sources: {layout}")
            return len(layout.loop) + self.axis % visible
        spatial = [i for i in layout.spatial if i != layout.feature or layout.dims[i].dynamic]
        if spatial:
            return spatial[-1] + 1
        return layout.rank if layout.feature is None else layout.feature

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The common layout with the new axis."""
        known = tuple(s for s in sources if s is not None)
        if not known:
            return None
        layout = common(known, self.behavior)
        at = self._place(layout)
        new = self.axis_dim(self.out_spatial_dim, self.dim("stack", len(sources), SPATIAL))
        time, feature = (None if r is None else r + (r >= at) for r in (layout.time, layout.feature))
        dims = (*layout.dims[:at], new, *layout.dims[at:])
        return Spec(dims, layout.dtype, sparse_dim=layout.sparse_dim, time=time, feature=feature, loop=layout.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The stacked sources."""
        specs = tuple(x.spec for x in sources)
        layout = common(specs, self.behavior)
        whole = sizes(layout, sources)
        parts = [place(x, layout, self.behavior).expand(whole) for x in sources]
        return joined(torch.stack(parts, self._place(layout)), self.made_spec(*specs), sources)


@layer("split")
class Split(Layer):
    """An axis split into parts, which are "<name>/0", "<name>/1" …  Shape: (B, T, F), num_splits 2 -> 2 x (B, T, F / 2)

    `num_splits` equal parts, or parts of the sizes `size_splits` (or `out_dims`). The output itself is the source.
    """

    def __init__(
        self,
        *,
        axis: AxisText = "F",
        num_splits: PositiveInt | None = None,
        size_splits: Sequence[int] | None = None,
        out_dims: Sequence[Dim] | None = None,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.num_splits = num_splits
        self.size_splits = size_splits
        self.out_dims = out_dims
        if [num_splits, size_splits, out_dims].count(None) != 2:
            raise self.error("needs one of the options `num_splits`, `size_splits`, `out_dims`")

    @property
    def given_size(self) -> int | None:
        """The features of the source, as the sizes of the parts tell."""
        if self.axis != "F" or self.num_splits is not None:
            return super().given_size
        return sum(self.size_splits or [d.size or 0 for d in self.out_dims or ()])

    def _parts(self, x: Spec) -> tuple[int, list[Dim]]:
        """The axis, and those of the parts."""
        at = find_axis(x, self.axis)
        size = x.dims[at].size
        if size is None:
            raise self.error(f"`axis` must be a static axis, but is {x.dims[at]} instead")
        if self.out_dims is not None:
            dims = self._given_parts(self.out_dims, size)
        elif self.size_splits is not None:
            dims = [self.dim(f"split{i}", n, kind_of(x, at), "_") for i, n in enumerate(self.size_splits)]
        else:
            number = self.num_splits or 1
            if size % number:
                raise self.error(f"the axis {x.dims[at]} must be a multiple of `num_splits` {number}")
            dims = [self.dim(f"split{i}", size // number, kind_of(x, at), "_") for i in range(number)]
        if sum(d.size or 0 for d in dims) != size:
            raise self.error(f"the parts {[d.size for d in dims]} must add up to the size {size} of {x.dims[at]}")
        return at, dims

    def _given_parts(self, given: Sequence[Dim], size: int) -> list[Dim]:
        """The Dims of the parts; one without a size gets the rest."""
        open_ones = [d for d in given if d.size is None]
        if len(open_ones) > 1:
            raise self.error(f"at most one of `out_dims` may have no size, but {open_ones} have none")
        rest = size - sum(d.size or 0 for d in given)
        return [d if d.size is not None else d.with_size(rest) for d in given]

    def spec(self, x: Spec | None) -> Spec | None:
        """The source."""
        if x is not None:
            self._parts(x)
        return x

    def part_spec_from(self, part: str, x: Spec | None) -> Spec | None:
        """The source with the part's axis."""
        if x is None:
            return None
        at, dims = self._parts(x)
        if not part.isdigit() or int(part) >= len(dims):
            raise self.error(f"the parts are called 0 to {len(dims) - 1}, but {part!r} was requested")
        return with_axis(x, at, dims[int(part)])

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source, with its parts."""
        x = sources[0].copy()
        at, dims = self._parts(x.spec)
        pieces = x.data.split([d.size or 0 for d in dims], at)
        pairs = enumerate(zip(pieces, dims, strict=True))
        x.parts = {str(i): x.with_data(piece, with_axis(x.spec, at, dim)) for i, (piece, dim) in pairs}
        return x
