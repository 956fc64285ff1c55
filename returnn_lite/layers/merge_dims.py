"""Merging several axes into one: `merge_dims`, `combine_dims`."""

from __future__ import annotations

import math
from typing import Any

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.dim import FEATURE


@layer("merge_dims")
class MergeDims(Layer):
    """Several axes merged row-major into one.  Shape: (B, T, 2, 3), "static" -> (B, T, 6); "BT" -> (B * T, 2, 3)

    In the order of their positions, batch first, unless `keep_order` (always from behavior_version 6): then as listed.
    The result stands where the feature axis was, if it is among them, else at the first of the axes. Merging batch and
    time keeps the padding; `flatten_batch` drops it.
    """

    def __init__(self, *, axes: AxisText, keep_order: bool | None = None, n_out: PositiveInt | None = None) -> None:
        super().__init__()
        self.axes = axes
        self.keep_order = keep_order
        self.n_out = n_out

    def _axes(self, x: Spec) -> tuple[int, ...]:
        """The axes in the order in which they are merged."""
        if self.keep_order is None and self.behavior >= 6:
            self.keep_order = True
        if self.keep_order and isinstance(self.axes, str):
            raise self.error(f"`axes` must be a list where their order counts, but is {self.axes!r} instead")
        found = find_axes(x, self.axes, option="axes")
        if self.keep_order:
            return found
        return tuple(sorted(found, key=lambda i: (i != x.batch, i)))

    def _order(self, x: Spec) -> tuple[tuple[int, ...], int]:
        """The permutation that puts the merged axes side by side, and where they start."""
        merged = self._axes(x)
        anchor = x.feature if x.feature in merged else min(merged)
        before = [i for i in range(anchor) if i not in merged]
        after = [i for i in range(anchor, x.rank) if i not in merged]
        return (*before, *merged, *after), len(before)

    def spec(self, x: Spec | None) -> Spec | None:
        """The product of the axes: the batch axis, the new feature axis, or an axis with the product of the lengths."""
        if x is None or len(self._axes(x)) < 2:
            return x
        merged = self._axes(x)
        order, at = self._order(x)
        dims = [x.dims[i] for i in order]
        dims[at : at + len(merged)] = [self._merged_dim([x.dims[i] for i in merged], x.feature in merged)]
        time: Any = dims.index(x.dims[x.time]) if x.time is not None and x.time not in merged else None
        if x.time in merged:
            skip = at if dims[at].is_batch or x.feature in merged else None
            time = next((i for i, d in enumerate(dims) if i != skip and d.dynamic and d not in x.loop), None)
        if x.feature in merged and not dims[at].is_batch:
            return x.with_dims(dims, time=time, feature=at)
        return x.with_dims(dims, time=time) if time is not None else x.with_dims(dims).roles(time=None)

    def _merged_dim(self, dims: list[Dim], feature: bool) -> Dim:
        if any(d.is_batch for d in dims):
            return batch_dim
        product = dims[0]
        for dim in dims[1:]:
            product = product * dim
        return self.axis_dim(self.options.out_dim, product.as_kind(FEATURE) if feature else product)

    def forward(self, x: Tensor) -> Tensor:
        """The source reshaped."""
        merged = self._axes(x.spec)
        spec = self.spec(x.spec)
        if len(merged) < 2 or spec is None:
            return x
        order, at = self._order(x.spec)
        data = x.data.permute(order)
        sizes = data.shape
        total = math.prod(sizes[at : at + len(merged)])
        data = data.reshape((*sizes[:at], total, *sizes[at + len(merged) :]))
        if x.spec.batch in merged:
            x = _with_repeated_lengths(x, merged)
        return x.with_data(data, spec)


def _with_repeated_lengths(x: Tensor, merged: tuple[int, ...]) -> Tensor:
    """The lengths of the other axes for the larger batch: each sequence's repeated for what was merged with it."""
    position = merged.index(x.spec.batch or 0)
    before = math.prod(x.data.shape[i] for i in merged[:position])
    after = math.prod(x.data.shape[i] for i in merged[position + 1 :])
    kept = {d for i, d in enumerate(x.spec.dims) if i not in merged}
    return x.with_lengths({d: n.repeated(before, after) for d, n in x.lengths.items() if d in kept})


@layer("combine_dims")
class CombineDims(MergeDims):
    """`merge_dims` with the axes in the order listed.  Shape: (B, T, 2, 3), ["F", "dim:2"] -> (B, T, 6)"""

    def __init__(self, *, axes: AxisText, n_out: PositiveInt | None = None) -> None:
        super().__init__(axes=axes, keep_order=True, n_out=n_out)
