"""Normalization by statistics of the values at hand; `batch_norm` has that by running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from returnn_lite.frontend.along_axis import defined, moments
from returnn_lite.frontend.axes import split_dims
from returnn_lite.frontend.defaults import output_keeps_dtype
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.elementwise import rsqrt
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of
from returnn_lite.frontend.linear import moved_last
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.tensor import Tensor


def normalize(a: Tensor, *, axis: Dim | Sequence[Dim], epsilon: float = 1e-6) -> Tensor:
    """(a - mean) / sqrt(variance + epsilon) over axes, without padding."""
    mean, variance = (defined(x, axis) for x in moments(a, axis))
    found = (a - mean) * rsqrt(variance + epsilon)
    if a.feature_dim is not None:
        found.feature_dim = a.feature_dim
    return found


class _Norm(Module):
    """`scale` (1) and `bias` (0) of an axis, or of several."""

    def __init__(self, in_dim: Dim | Sequence[Dim], *, eps: float, with_bias: bool) -> None:
        self.in_dim, self.eps = in_dim, eps
        self.dims: Dims = (in_dim,) if isinstance(in_dim, Dim) else tuple(in_dim)
        self.scale = Parameter(self.dims)
        self.scale.initial = 1.0
        self.bias: Any = None
        if with_bias:
            self.bias = Parameter(self.dims)
            self.bias.initial = 0.0

    def _last(self, source: Tensor) -> tuple[torch.Tensor, Dims | None]:
        """The data with the normalized axes last, and the axes if they are in another order now."""
        dims = self.dims
        if isinstance(source, Tensor) and source.dims[-1] is dims[-1] and (len(dims) == 1 or source.dims[-2:] == dims):
            return source.raw_tensor, None
        if len(dims) == 1:
            raw, rest = moved_last(source, dims[0], type(self).__name__)
            return raw, (*rest, dims[0])
        for dim in dims:
            axis_of(source.dims, dim, f"{type(self).__name__}: {source}")
        wanted = (*(dim for dim in source.dims if dim not in dims), *dims)
        return arranged(source.raw_tensor, source.dims, wanted), wanted

    keeps_feature = True

    def _back(self, source: Tensor, raw: torch.Tensor, order: Dims | None) -> Tensor:
        """The result with the axes of the source."""
        if raw.dtype != source.raw_tensor.dtype and output_keeps_dtype():
            raw = raw.to(source.raw_tensor.dtype)
        raw = raw if order is None else arranged(raw, order, source.dims)
        return source._like(raw) if self.keeps_feature else source._new(raw, source.dims)

    def _raw(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Data, scale and bias in one precision, the higher one."""
        scale, bias = self.scale.raw_tensor, self.bias
        return x.to(torch.promote_types(x.dtype, scale.dtype)), scale, None if bias is None else bias.raw_tensor


class LayerNorm(_Norm):
    """(x - mean) / sqrt(variance + eps) · scale + bias over one axis or several (Ba et al., 2016)."""

    def __init__(self, in_dim: Dim | Sequence[Dim], *, eps: float = 1e-6, with_bias: bool = True) -> None:
        super().__init__(in_dim, eps=eps, with_bias=with_bias)

    def __call__(self, source: Tensor) -> Tensor:
        """Axes and roles stay."""
        raw, order = self._last(source)
        raw, scale, bias = self._raw(raw)
        return self._back(source, functional.layer_norm(raw, scale.shape, scale, bias, self.eps), order)


class RMSNorm(_Norm):
    """x / sqrt(mean(x²) + eps) · scale, with or without bias (Zhang and Sennrich, 2019)."""

    def __init__(self, in_dim: Dim | Sequence[Dim], *, eps: float = 1e-6, with_bias: bool = False) -> None:
        super().__init__(in_dim, eps=eps, with_bias=with_bias)

    def __call__(self, source: Tensor) -> Tensor:
        """Axes and roles stay."""
        raw, order = self._last(source)
        raw, scale, bias = self._raw(raw)
        found = functional.rms_norm(raw, scale.shape, scale, self.eps)
        return self._back(source, found if bias is None else found + bias, order)


class GroupNorm(_Norm):
    """Statistics over the channels of a group, at each position alone; `num_groups` consecutive groups."""

    keeps_feature = False

    def __init__(self, in_dim: Dim, *, num_groups: int | Dim, eps: float = 1e-6) -> None:
        super().__init__(in_dim, eps=eps, with_bias=True)
        self.num_groups = num_groups if isinstance(num_groups, Dim) else Dim(num_groups, name="groups")
        size, groups = in_dim.dimension, self.num_groups.dimension
        if size is None or not groups or size % groups:
            raise WrongUse(f"{type(self).__name__}: axis {in_dim} must be a multiple of {self.num_groups}")
        self.group_dim = in_dim.div_left(self.num_groups)

    def __call__(self, source: Tensor) -> Tensor:
        """Axes and roles stay."""
        raw, order = self._last(source)
        raw, scale, bias = self._raw(raw)
        parts = raw.unflatten(-1, (self.num_groups.padded_size(), -1))
        found = functional.layer_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * scale
        return self._back(source, found if bias is None else found + bias, order)


class GroupNormSpatial(GroupNorm):
    """Statistics over the channels of a group and positions, without padding (Wu and He, 2018)."""

    def __call__(self, source: Tensor, *, spatial_dim: Dim | Sequence[Dim]) -> Tensor:  # type: ignore[override]
        """Axes and roles stay. `spatial_dim`: the axis or axes of the positions."""
        spatial = [spatial_dim] if isinstance(spatial_dim, Dim) else list(spatial_dim)
        parts = split_dims(source, axis=self.dims[0], dims=[self.num_groups, self.group_dim])
        found = normalize(parts, axis=[*spatial, self.group_dim], epsilon=self.eps)
        raw = found.copy_compatible_to_dims_raw(parts.dims)
        at = source.dims.index(self.dims[0])
        shape = [-1 if i == at else 1 for i in range(len(source.dims))]
        raw = raw.flatten(at, at + 1) * self.scale.raw_tensor.reshape(shape) + self.bias.raw_tensor.reshape(shape)
        return self._back(source, raw, None)


class Normalize(Module):
    """`normalize` with a scale and a bias of their own axes."""

    def __init__(
        self, *, param_dims: Dim | Sequence[Dim], epsilon: float = 1e-6, scale: bool = True, bias: bool = True
    ) -> None:
        self.epsilon = epsilon
        dims = (param_dims,) if isinstance(param_dims, Dim) else tuple(param_dims)
        self.scale: Any = None
        self.bias: Any = None
        if scale:
            self.scale = Parameter(dims)
            self.scale.initial = 1.0
        if bias:
            self.bias = Parameter(dims)
            self.bias.initial = 0.0

    def __call__(self, a: Tensor, *, axis: Dim | Sequence[Dim]) -> Tensor:
        """Normalized over `axis`; axes and roles stay."""
        found = normalize(a, axis=axis, epsilon=self.epsilon)
        if self.scale is not None:
            found = found * self.scale
        return found if self.bias is None else found + self.bias
