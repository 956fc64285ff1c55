"""Splitting one axis into several: `split_dims`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import FEATURE, SPATIAL


@layer("split_dims")
class SplitDims(Layer):
    """One axis split row-major into `dims`, in its place.  Shape: (B, T, 6), "F", (2, -1) -> (B, T, 2, 3)

    One entry may be -1 (what remains). A dynamic axis is padded with `pad_value` to a multiple of the other parts; its
    -1 part has the lengths ceil(len / product). Other axes are padded only with `pad_to_multiples`. The -1 part of the
    batch axis is a smaller batch axis.
    """

    lets_padding_through = True

    def __init__(
        self, *, axis: AxisText, dims: Sequence[int | Dim], pad_to_multiples: bool | None = None, pad_value: float = 0
    ) -> None:
        super().__init__()
        self.axis = axis
        self.parts = tuple(dims)
        self.pad_to_multiples = pad_to_multiples
        self.pad_value = pad_value
        rests = [i for i, p in enumerate(self.parts) if p == -1 or (isinstance(p, Dim) and p.size is None)]
        if len(rests) > 1:
            raise self.error(f"`dims` must have at most one -1, but is {dims!r} instead")
        self.rest = rests[0] if rests else None
        sizes = [p.size if isinstance(p, Dim) else p for i, p in enumerate(self.parts) if i != self.rest]
        if any(not isinstance(n, int) or n <= 0 for n in sizes):
            raise self.error(f"`dims` must be positive numbers, Dims, and one -1, but is {dims!r} instead")
        self.fixed = math.prod(n for n in sizes if isinstance(n, int))

    def spec(self, x: Spec | None) -> Spec | None:
        """The parts in place of the axis; the last part of a feature axis is the new one, time goes to the rest."""
        if x is None:
            return None
        at = find_axis(x, self.axis)
        parts = self._part_dims(x, at)
        dims = (*x.dims[:at], *parts, *x.dims[at + 1 :])
        time: Any = x.time_dim
        if at == x.time:
            time = at + (self.rest or 0)
        feature: Any = x.feature
        if feature is not None and feature > at:
            feature += len(parts) - 1
        elif feature == at:
            feature = next((at + i for i in reversed(range(len(parts))) if parts[i].kind == FEATURE), AUTO)
        return x.with_dims(dims, time=time, feature=feature)

    def _part_dims(self, x: Spec, at: int) -> list[Dim]:
        kind = FEATURE if at == x.feature else SPATIAL
        dims = []
        for i, part in enumerate(self.parts):
            if i == self.rest:
                dims.append(self._rest(x, at, kind))
            else:
                dims.append(part if isinstance(part, Dim) else self.dim(f"split_dims{i}", part, kind, "_"))
        if self.rest is None:
            self._check_product(x, at, self.fixed)
        return dims

    def _rest(self, x: Spec, at: int, kind: str) -> Dim:
        """The part that is written -1."""
        old, given, name = x.dims[at], self.parts[self.rest or 0], f"split_dims{self.rest}_rem"
        if old.is_batch:
            return old
        if old.size is not None:
            size = -(-old.size // self.fixed)
            self._check_product(x, at, size * self.fixed)
            return self.dim(name, size, kind, "_")
        if isinstance(given, Dim):
            return given
        return old if self.fixed == 1 else old.ceildiv(self.fixed).named(f"{self.name}_{name}")

    def _check_product(self, x: Spec, at: int, product: int) -> None:
        size = x.dims[at].size
        if size is None or x.dims[at].is_batch:
            raise self.error(f"`dims` needs a -1 for the dynamic axis {x.dims[at]}, but is {self.parts!r} instead")
        padded = self.pad_to_multiples and self.rest is not None and product >= size
        if product != size and not padded:
            text = f"the product of `dims` {self.parts!r} must be the size {size} of the axis {self.axis!r}"
            raise self.error(f"{text}, but is not; the source: {describe(x)}")

    def forward(self, x: Tensor) -> Tensor:
        """The source, padded and reshaped."""
        at = find_axis(x.spec, self.axis)
        dim, data = x.spec.dims[at], x.data
        pad = dim.dynamic if self.pad_to_multiples is None else self.pad_to_multiples
        missing = -data.shape[at] % self.fixed
        if pad and missing:
            data = F.pad(data, (0, 0) * (data.dim() - 1 - at) + (0, missing), value=self.pad_value)
        spec = self.spec(x.spec)
        given = [p.size if isinstance(p, Dim) else p for p in self.parts]
        sizes = [-1 if i == self.rest or n is None else int(n) for i, n in enumerate(given)]
        rest = self.parts[self.rest] if self.rest is not None else None
        if dim.dynamic and isinstance(rest, Dim):
            x = x.with_lengths({rest: x.length(dim.ceildiv(self.fixed))})
        if dim.is_batch and self.fixed > 1:
            x = x.with_lengths({d: n.every(self.fixed) for d, n in x.lengths.items() if d in x.spec.dims})
        if data.numel() == 0:
            sizes = [data.shape[at] // self.fixed if n == -1 else n for n in sizes]
        return x.with_data(data.reshape((*data.shape[:at], *sizes, *data.shape[at + 1 :])), spec)
