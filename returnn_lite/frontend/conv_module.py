"""What modules of convolutions and transposed convolutions have in common: parameters, and the calls by axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from returnn_lite.frontend import init
from returnn_lite.frontend.conv_sizes import Numbers, number_of, per_axis
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.sizes import dim_match_priority_when_needed
from returnn_lite.frontend.tensor import Tensor


class ConvModule(Module):
    """Parameters: `filter` [features, features, sizes …], `bias` [out]. `nd`: the number of spatial axes."""

    nd: ClassVar[int]

    def _make_parameters(self, first: Dim, second: Dim, filter_size: Numbers, out_dim: Dim, with_bias: bool) -> None:
        self.filter_size = filter_dims(filter_size, self.nd)
        self.filter = Parameter((dim_match_priority_when_needed(first, second), second, *self.filter_size))
        self.filter.initial = init.Glorot()
        self.with_bias = with_bias
        self.bias: Any = None
        if with_bias:
            self.bias = Parameter((out_dim,))
            self.bias.initial = 0.0

    def _convolved(
        self, source: Tensor, spatial: Sequence[Dim], outs: Sequence[Dim] | None
    ) -> tuple[Tensor, list[Dim]]:
        """(tensor, the new spatial axes)."""
        raise NotImplementedError


class OverOneAxis(ConvModule):
    """Called with one spatial axis."""

    nd = 1

    def __call__(
        self, source: Tensor, *, in_spatial_dim: Dim, out_spatial_dim: Dim | None = None
    ) -> tuple[Tensor, Dim]:
        """(tensor, the new spatial axis); axes: batch axes, `out_dim`, spatial axis."""
        outs = None if out_spatial_dim is None else [out_spatial_dim]
        found, (out,) = self._convolved(source, [in_spatial_dim], outs)
        return found, out


class OverAxes(ConvModule):
    """Called with a list of spatial axes."""

    def __call__(
        self, source: Tensor, *, in_spatial_dims: Sequence[Dim], out_spatial_dims: Sequence[Dim] | None = None
    ) -> tuple[Tensor, list[Dim]]:
        """(tensor, the new spatial axes); axes: batch axes, `out_dim`, spatial axes."""
        if len(in_spatial_dims) != self.nd:
            raise WrongUse(f"{type(self).__name__} needs {self.nd} spatial axes, but got {show(in_spatial_dims)}")
        return self._convolved(source, in_spatial_dims, out_spatial_dims)


def filter_dims(sizes: Numbers, count: int) -> list[Dim]:
    """The axes of a filter, each of its own."""
    found: list[Dim] = []
    for i, size in enumerate(per_axis(sizes, count)):
        own = size if isinstance(size, Dim) and size not in found else Dim(number_of(size), name=f"filter-dim{i}")
        found.append(own)
    return found
