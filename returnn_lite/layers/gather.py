"""Picking frames by their positions: `gather`, `gather_nd`, `scatter_nd`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.indexing import gather_rows, scatter_rows
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.align import joined, place
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis


@dataclass(frozen=True)
class _Plan:
    """Axes of source and position that are common (in pairs), and the order of the result.

    `order`: (0, i) is axis i of the source, (1, j) axis j of the position.
    """

    axis: int
    common: tuple[tuple[int, int], ...]
    order: tuple[tuple[int, int], ...]

    def spec(self, x: Spec, position: Spec) -> Spec:
        """The result's axes; roles: of the source where its axes are left, else the default."""
        both = (x, position)
        dims = [both[s].dims[i] for s, i in self.order]
        places: dict[tuple[int, int | None], int] = {at: n for n, at in enumerate(self.order)}
        roles: dict[str, Any] = {}
        for role, at in (("time", x.time), ("feature", x.feature)):
            if (0, at) in places:
                roles[role] = places[0, at]
        if "time" not in roles and (1, position.time) in places:
            roles["time"] = places[1, position.time]
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, loop=x.loop | position.loop, **roles)


def _gathered(x: Tensor, position: Tensor, plan: _Plan) -> torch.Tensor:
    """x at the positions, in the order of the plan."""
    common_x, common_p = [i for i, _ in plan.common], [j for _, j in plan.common]
    rest = [i for i in range(x.spec.rank) if i not in common_x and i != plan.axis]
    own = [j for j in range(position.spec.rank) if j not in common_p]
    data = x.data.permute((*common_x, plan.axis, *rest))
    index = position.data.permute((*common_p, *own))
    sizes = (*data.shape[: len(common_x)], *index.shape[len(common_p) :], *data.shape[len(common_x) + 1 :])
    batch, frames = math.prod(data.shape[: len(common_x)]), data.shape[len(common_x)]
    picked = gather_rows(data.reshape((batch, frames, -1)), index.reshape((batch, -1))).reshape(sizes)
    made = [*((0, i) for i in common_x), *((1, j) for j in own), *((0, i) for i in rest)]
    return picked.permute([made.index(at) for at in plan.order])


@layer("gather_nd")
class GatherNd(Layer):
    """The frames at the given positions of the axis after batch.  Shape: (B, T, F), position (B, N) -> (B, N, F)

    The axes of `position` first, then those of the source from the third one on.
    """

    recurrent = True

    def __init__(self, *, position: LayerRef) -> None:
        super().__init__()
        self.position = position
        self.plans: dict[tuple[Spec, Spec], _Plan] = {}

    def _plan(self, x: Spec, position: Spec) -> _Plan:
        if (x, position) not in self.plans:
            self.plans[x, position] = self._made_plan(x, position)
        return self.plans[x, position]

    def _made_plan(self, x: Spec, position: Spec) -> _Plan:
        """Batch and loop axes are common."""
        order = x.order(*([] if x.batch is None else [x.batch]))
        front = len(x.loop) + (x.batch is not None)
        if x.rank <= front:
            raise self.error(f"the source needs an axis after batch, but is {describe(x)}")
        common = [(i, j) for i in order[:front] for j, d in enumerate(position.dims) if _same(x.dims[i], d)]
        paired = {j: i for i, j in common}
        alone = [(0, i) for i in order[:front] if i not in paired.values()]
        of_position = [(0, paired[j]) if j in paired else (1, j) for j in range(position.rank)]
        rest = [(0, i) for i in order[front + 1 :]]
        made = [*alone, *of_position, *rest]
        made.sort(key=lambda p: (x, position)[p[0]].dims[p[1]] not in x.loop | position.loop)
        return _Plan(order[front], tuple(common), tuple(made))

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Position's axes, then the rest of the source."""
        x, position = sources[0], refs["position"]
        return None if x is None or position is None else self._plan(x, position).spec(x, position)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The picked frames."""
        x, position = sources[0], refs["position"]
        plan = self._plan(x.spec, position.spec)
        return joined(_gathered(x, position, plan), self.made_spec(x.spec, position=position.spec), [x, position])


def _same(a: Dim, b: Dim) -> bool:
    return a == b or (a.is_batch and b.is_batch)


@layer("gather")
class Gather(Layer):
    """The entries of `axis` at the given positions.  Shape: (B, T, F), "T", position (B, N) -> (B, N, F)

    `position`: a layer or a number. Axes that both have are common and come first, then the source's before `axis`,
    those of the position, the source's rest. `clip_to_valid`: positions are clipped to [0, len - 1].
    """

    recurrent = True

    def __init__(self, *, position: LayerRef | int, axis: AxisText, clip_to_valid: bool = False) -> None:
        super().__init__()
        self.position = position
        self.axis = axis
        self.clip_to_valid = clip_to_valid
        self.plans: dict[tuple[Spec, Spec], _Plan] = {}
        if not isinstance(position, (int, str)):
            raise self.error(f"`position` must be a layer or a number, but is {position!r} instead")

    def _plan(self, x: Spec, position: Spec) -> _Plan:
        if (x, position) not in self.plans:
            self.plans[x, position] = self._made_plan(x, position)
        return self.plans[x, position]

    def _position(self, x: Spec, position: Spec) -> Spec:
        """The axes of the positions; where they are clipped by lengths, they differ by sequence."""
        clipped = self.clip_to_valid and x.dims[find_axis(x, self.axis)].dynamic
        if not clipped or x.batch is None or position.batch is not None:
            return position
        return position.with_dims((*position.dims, x.dims[x.batch]))

    def _made_plan(self, x: Spec, position: Spec) -> _Plan:
        at = find_axis(x, self.axis)
        common: list[tuple[int, int]] = []
        for i, dim in enumerate(x.dims):
            j = next((j for j, d in enumerate(position.dims) if i != at and _same(dim, d)), None)
            if j is not None and all(j != used for _, used in common):
                common.append((i, j))
        paired = [j for _, j in common]
        own = [(1, j) for j in range(position.rank) if j not in paired]
        single = [(0, i) for i in range(x.rank) if i != at and all(i != used for used, _ in common)]
        before, after = [p for p in single if p[1] < at], [p for p in single if p[1] > at]
        order = [*((0, i) for i, _ in common), *before, *own, *after]
        order.sort(key=lambda p: (x, position)[p[0]].dims[p[1]] not in x.loop | position.loop)
        return _Plan(at, tuple(common), tuple(order))

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Common axes, source's before, position's, source's after."""
        if x is None or ("position" in refs and refs["position"] is None):
            return None
        position = refs.get("position")
        if position is None:
            return x.without([find_axis(x, self.axis)])
        position = self._position(x, position)
        return self._plan(x, position).spec(x, position)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The picked entries."""
        at = find_axis(x.spec, self.axis)
        if "position" not in refs:
            return self._at_number(x, int(self.position), at)
        position = refs["position"]
        out, wanted = self.made_spec(x.spec, position=position.spec), self._position(x.spec, position.spec)
        if wanted.rank > position.spec.rank:
            position = position.with_data(position.data.unsqueeze(-1), wanted)
        if self.clip_to_valid:
            position = position.with_data(self._clipped(x, position, at))
        return joined(_gathered(x, position, self._plan(x.spec, wanted)), out, [x, position])

    def _at_number(self, x: Tensor, number: int, at: int) -> Tensor:
        out, size = self.made_spec(x.spec), x.data.shape[at]
        if not self.clip_to_valid:
            return x.with_data(x.data.select(at, number), out)
        lengths = x.length(x.spec.dims[at]) if x.spec.dims[at].dynamic else None
        if lengths is None or number <= 0:
            return x.with_data(x.data.select(at, min(max(number, 0), size - 1)), out)
        last = Tensor(lengths.values.long() - 1, Spec(lengths.dims, "int64", time=None, feature=None), {})
        index = place(last, x.spec, self.behavior).clamp(min=0, max=number)
        shape = [1 if i == at else n for i, n in enumerate(x.data.shape)]
        return x.with_data(x.data.gather(at, index.expand(shape)).squeeze(at), out)

    def _clipped(self, x: Tensor, position: Tensor, at: int) -> torch.Tensor:
        dim = x.spec.dims[at]
        if not dim.dynamic:
            return position.data.clamp(0, x.data.shape[at] - 1)
        lengths = x.length(dim)
        last = lengths.values.to(position.data.dtype) - 1
        shape = [1] * position.spec.rank
        for i, d in enumerate(lengths.dims):
            shape[next(j for j, p in enumerate(position.spec.dims) if _same(p, d))] = last.shape[i]
        return torch.minimum(position.data, last.reshape(shape)).clamp(min=0)


@layer("scatter_nd")
class ScatterNd(Layer):
    """The source's frames added up at positions of a new axis.  Shape: (B, N, F), position (B, N) -> (B, T, F)

    `position_axis` of `position` is replaced by the new time axis: that of `output_dim_via_time_from`, or
    `out_spatial_dim`. `filter_invalid_indices`: positions outside of it are dropped, else they are an error.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        position: LayerRef,
        position_axis: AxisText,
        output_dim_via_time_from: LayerRef | None = None,
        out_spatial_dim: Dim | None = None,
        filter_invalid_indices: bool = False,
    ) -> None:
        super().__init__()
        self.position = position
        self.position_axis = position_axis
        self.output_dim_via_time_from = output_dim_via_time_from
        self.out_spatial_dim = out_spatial_dim
        self.filter_invalid_indices = filter_invalid_indices
        if output_dim_via_time_from is None and out_spatial_dim is None:
            raise self.error("needs `output_dim_via_time_from` or `out_spatial_dim`")

    def _layout(self, x: Spec, position: Spec) -> tuple[list[int | None], list[int]]:
        """For every axis of position the source's axis (None: it lacks it), and the source's other axes."""
        used: list[int | None] = []
        for dim in position.dims:
            used.append(next((i for i, d in enumerate(x.dims) if i not in used and _same(d, dim)), None))
        return used, [i for i in range(x.rank) if i not in used]

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Position's axes with the new time axis, then the rest of the source."""
        x, position, base = sources[0], refs["position"], refs.get("output_dim_via_time_from")
        if x is None or position is None or (self.output_dim_via_time_from is not None and base is None):
            return None
        at = find_axis(position, self.position_axis, option="position_axis")
        new = self.out_spatial_dim or (base.time_dim if base is not None else None)
        if new is None:
            raise self.error(f"the layer {self.output_dim_via_time_from!r} needs a time axis, but is {base}")
        _, rest = self._layout(x, position)
        dims = [new if j == at else d for j, d in enumerate(position.dims)] + [x.dims[i] for i in rest]
        feature: Any = position.rank + rest.index(x.feature) if x.feature in rest else None
        loop = x.loop | position.loop
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=at, feature=feature, loop=loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The sums."""
        x, position = sources[0], refs["position"]
        spec = self.made_spec(x.spec, **{k: r.spec for k, r in refs.items()})
        out = joined(x.data, x.spec, [x, *refs.values()])
        at = find_axis(position.spec, self.position_axis, option="position_axis")
        new = spec.dims[at]
        frames = new.size if new.size is not None else out.length(new).max
        index = position.data.movedim(at, -1)
        updates = self._updates(x, position, at)
        lead, tail = index.shape[:-1], updates.shape[index.dim() :]
        batch, count = math.prod(lead), index.shape[-1]
        rows, index = updates.reshape((batch, count, math.prod(tail))), index.reshape((batch, count))
        sums = scatter_rows(rows, index, frames, drop=self.filter_invalid_indices)
        data = sums.reshape((*lead, frames, *tail)).movedim(len(lead), at)
        return out.with_data(data, spec)

    def _updates(self, x: Tensor, position: Tensor, at: int) -> torch.Tensor:
        """The source with the axes of position (its position axis last), then its others."""
        used, rest = self._layout(x.spec, position.spec)
        data = x.data.permute([*(i for i in used if i is not None), *rest])
        for j, i in enumerate(used):
            data = data.unsqueeze(j) if i is None else data
        data = data.expand((*position.data.shape, *data.shape[position.spec.rank :]))
        return data.movedim(at, position.spec.rank - 1)
