"""Axes into other axes of the same total size: `reshape`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.spec import Role


@layer("reshape")
class Reshape(Layer):
    """The axes `in_dims`, in this order, seen as `out_dims`.  Shape: (B, T, 6), ["F"], [2, 3] -> (B, T, 2, 3)

    `out_dims`: Dims and numbers, one of which may be -1. The lengths of dynamic ones must be known from the data or
    from the layers `extra_deps`. The new axes replace the first of the old ones.
    """

    sources = "many"
    recurrent = True

    def __init__(self, *, in_dims: Sequence[AxisText], out_dims: Sequence[Any], extra_deps: Sequence[str] = ()) -> None:
        super().__init__()
        self.in_dims = list(in_dims)
        self.out_dims = list(out_dims)
        self.extra_deps = tuple(extra_deps)

    async def link(self, net: Linker, node: Node) -> None:
        """The layers that know lengths are read."""
        for name in self.extra_deps:
            node.refs[f"extra_deps:{name}"] = await net.ask(name)

    def _order(self, x: Spec) -> tuple[list[int], int]:
        """The permutation that puts the old axes side by side, and where they start."""
        old = [find_axis(x, a, option="in_dims") for a in self.in_dims]
        if not old or len(set(old)) != len(old):
            raise self.error(f"`in_dims` must name different axes, but is {self.in_dims!r} instead; the source: {x}")
        before = [i for i in range(old[0]) if i not in old]
        return [*before, *old, *(i for i in range(old[0], x.rank) if i not in old)], len(before)

    def _new(self, x: Spec, old: Sequence[Dim]) -> list[Dim]:
        dims: list[Dim] = []
        for i, size in enumerate(self.out_dims):
            if isinstance(size, Dim):
                dims.append(size)
            elif isinstance(size, int) and size > 0:
                dims.append(self.dim(f"reshape:{i}", size))
            else:
                dims.append(self._rest(x, old, i, size))
        return dims

    def _rest(self, x: Spec, old: Sequence[Dim], i: int, size: Any) -> Dim:
        if isinstance(size, str):
            return x.dims[find_axis(x, size, option="out_dims")]
        known = 1
        for other in self.out_dims:
            known *= (other.size or 1) if isinstance(other, Dim) else other if other > 0 else 1
        product = old[0]
        for dim in old[1:]:
            product = product * dim
        return product.ceildiv(known) if product.size is None else self.dim(f"reshape:{i}", product.size // known)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The new axes in place of the old ones."""
        if x is None:
            return None
        order, at = self._order(x)
        old = order[at : at + len(self.in_dims)]
        new = self._new(x, [x.dims[i] for i in old])
        kept = [x.dims[i] for i in order]
        dims = [*kept[:at], *new, *kept[at + len(old) :]]
        time: Role = AUTO if x.time in old else None if x.time is None else dims.index(x.dims[x.time])
        feature: Role = AUTO if x.feature in old else None if x.feature is None else dims.index(x.dims[x.feature])
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=time, feature=feature, loop=x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The reshaped source."""
        x, spec = sources[0], self.made_spec(sources[0].spec)
        order, at = self._order(x.spec)
        data = x.data.permute(order)
        made = MadeSizes(self, [x, *refs.values()])
        count = len(self.in_dims)
        new = spec.dims[at : at + spec.rank - x.spec.rank + count]
        sizes = made.shape(Spec(new, time=None, feature=None))
        data = data.reshape((*data.shape[:at], *sizes, *data.shape[at + count :]))
        lengths = {d: made.tensor(data, Spec(())).length(d) for d in new if d.dynamic}
        return x.with_lengths(lengths).with_data(data, spec)
