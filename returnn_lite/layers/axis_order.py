"""Layers that only move, add or drop axes: `swap_axes`, `transpose`, `squeeze`, `expand_dims`."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.layers.reduce import has_int, ordered
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import FEATURE, SPATIAL


class Permuting(Layer):
    """Base of layers that only change the order of the axes."""

    def order(self, x: Spec) -> tuple[int, ...]:
        """The permutation."""
        raise NotImplementedError

    def spec(self, x: Spec | None) -> Spec | None:
        """The axes in the new order; each keeps its role."""
        return None if x is None else x.permuted(self.order(x))

    def forward(self, x: Tensor) -> Tensor:
        """The permuted source."""
        return x.with_data(x.data.permute(self.order(x.spec)), self.spec(x.spec))


@layer("swap_axes")
class SwapAxes(Permuting):
    """Two axes change places; each keeps its role.  Shape: (B, T, F), "T", "F" -> (B, F, T)"""

    def __init__(self, *, axis1: AxisText, axis2: AxisText) -> None:
        super().__init__()
        self.axis1 = axis1
        self.axis2 = axis2

    def order(self, x: Spec) -> tuple[int, ...]:
        """The two positions exchanged."""
        order = list(range(x.rank))
        a, b = find_axis(x, self.axis1, option="axis1"), find_axis(x, self.axis2, option="axis2")
        order[a], order[b] = order[b], order[a]
        return tuple(order)


@layer("transpose")
class Transpose(Permuting):
    """The axes in another order.  Shape: (B, T, F), {"T": "F", "F": "T"} -> (B, F, T)

    `perm`: {target axis: source axis}, or a list of all axes in the new order.
    """

    def __init__(self, *, perm: Mapping[AxisText, AxisText] | list[AxisText] | tuple[AxisText, ...]) -> None:
        super().__init__()
        self.perm = perm

    def order(self, x: Spec) -> tuple[int, ...]:
        """What `perm` says; axes it does not name stay."""
        if isinstance(self.perm, Mapping):
            order = list(range(x.rank))
            for target, source in self.perm.items():
                order[find_axis(x, target, option="perm")] = find_axis(x, source, option="perm")
        else:
            order = list(x.order()[: len(x.loop)]) + [find_axis(x, a, option="perm") for a in self.perm]
        if sorted(order) != list(range(x.rank)):
            raise self.error(f"`perm` must name every axis once, but is {self.perm!r}; the source: {describe(x)}")
        return tuple(order)


@layer("squeeze")
class Squeeze(Layer):
    """Axes of size 1 dropped.  Shape: (B, T, 1), "F" -> (B, T)

    "auto": all static axes of size 1. `allow_no_op`: a missing axis is not an error.
    """

    def __init__(self, *, axis: AxisText, enforce_batch_dim_axis: int | None = None, allow_no_op: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.batch_at = 0 if enforce_batch_dim_axis is None and has_int(axis) else enforce_batch_dim_axis
        self.allow_no_op = allow_no_op

    def _axes(self, x: Spec) -> tuple[int, ...]:
        if self.axis == "auto":
            return tuple(i for i, d in enumerate(x.dims) if d.size == 1 and d not in x.loop)
        found = find_axes(x, self.axis)
        if not found and not self.allow_no_op:
            raise self.error(f"`axis` {self.axis!r} names no axis of the source {describe(x)}")
        wrong = [x.dims[i] for i in found if x.dims[i].size not in (1, None) or x.dims[i].is_batch]
        if wrong:
            raise self.error(f"`axis` must name axes of size 1, but names {wrong[0]}; the source: {describe(x)}")
        return found

    def spec(self, x: Spec | None) -> Spec | None:
        """The source without these axes."""
        if x is None:
            return None
        x = x.permuted(ordered(x, self.batch_at))
        found = self._axes(x)
        return x.without(found) if found else x

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source without these axes."""
        x = sources[0].permuted(ordered(sources[0].spec, self.batch_at))
        gone = self._axes(x.spec)
        keep = [n for i, n in enumerate(x.data.shape) if i not in gone]
        return x.with_data(x.data.reshape(keep), self.spec(sources[0].spec)) if gone else x


@layer("expand_dims")
class ExpandDims(Layer):
    """A new axis of size `dim`, the data repeated.  Shape: (B, T, F), "spatial" -> (B, T, 1, F); "F" -> (B, T, F, 1)

    `dim`: a number, or a Dim whose size or lengths are known. "F": after the feature axis, which keeps its role.
    "spatial" or "T": before the last axis (sparse: at the end); it is the time axis if there was none. A number: at
    that position of the batch-major source.
    """

    def __init__(self, *, axis: AxisText, dim: NaturalInt | Dim = 1) -> None:
        super().__init__()
        self.axis = axis
        self.given = dim
        words = ("f", "feature", "spatial", "time", "t")
        if not isinstance(axis, int) and str(axis).lower() not in words:
            raise self.error(f'`axis` must be "F", "spatial", "T" or a number, but is {axis!r} instead')

    def _place(self, x: Spec) -> tuple[int, str]:
        """Position and kind of the new axis, in the source with the batch axis in front if `axis` is a number."""
        if isinstance(self.axis, int):
            visible = x.rank - len(x.loop)
            at = self.axis if self.axis >= 0 else visible + 1 + self.axis
            if not 0 <= at <= visible:
                raise self.error(f"`axis` must be a position in {describe(x)}, but is {self.axis} instead")
            return at + len(x.loop), SPATIAL
        if self.axis.lower() in ("f", "feature"):
            return (x.rank if x.feature is None else x.feature + 1), FEATURE
        return (x.rank if x.sparse or x.rank == len(x.loop) else x.rank - 1), SPATIAL

    def _batch_at(self) -> int | None:
        return 0 if isinstance(self.axis, int) else None

    def spec(self, x: Spec | None) -> Spec | None:
        """The source with one more axis."""
        if x is None:
            return None
        x = x.permuted(ordered(x, self._batch_at()))
        at, kind = self._place(x)
        new = self.given if isinstance(self.given, Dim) else self.dim("expand_dims", self.given, kind, "_")
        wants_time = isinstance(self.axis, str) and kind == SPATIAL and x.time is None
        out = x.with_dims((*x.dims[:at], new, *x.dims[at:]), time=at if wants_time else None)
        return out if x.sparse or x.feature is not None or kind != FEATURE else out.roles(feature=at)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source, repeated along the new axis (as a view)."""
        x = sources[0].permuted(ordered(sources[0].spec, self._batch_at()))
        at, _ = self._place(x.spec)
        spec = self.made_spec(sources[0].spec)
        made, shape = MadeSizes(self, [x]), x.data.shape
        (size,) = made.shape(Spec([spec.dims[at]], time=None, feature=None))
        data = x.data.unsqueeze(at).expand((*shape[:at], size, *shape[at:]))
        return x.with_lengths(made.lengths).with_data(data, spec) if spec.dims[at].dynamic else x.with_data(data, spec)
