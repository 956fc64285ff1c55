"""Normalisation over axes: `layer_norm`, `norm`; and `math_norm`, the p-norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import NaturalFloat, PositiveFloat
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.norms import normalize
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.masked import fill_padding


@layer("layer_norm")
class LayerNorm(Layer):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias over the features (Ba et al. 2016).

    Shape: (B, T, F) -> the same

    Parameters: `scale`, `bias` (F,). `in_dim`: the axis to normalise instead of the feature axis.
    """

    full_precision = True

    def __init__(self, *, epsilon: NaturalFloat = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def _axis(self, x: Spec) -> int:
        if x.sparse:
            raise self.error(f"needs dense input, but gets {x}")
        if isinstance(self.options.in_dim, Dim) and self.options.in_dim in x.dims:
            return x.dims.index(self.options.in_dim)
        if x.feature is None:
            raise self.error(f"the source needs a feature axis, but is {x} instead")
        return x.feature

    def spec(self, x: Spec | None) -> Spec | None:
        """The source; with `out_dim` the axis gets that Dim."""
        if x is None or self._axis(x) is None or not isinstance(self.options.out_dim, Dim):
            return x
        at = self._axis(x)
        return x.with_dims(self.axis_dim(self.options.out_dim, d) if i == at else d for i, d in enumerate(x.dims))

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`scale`, `bias`."""
        size = sources[0].dims[self._axis(sources[0])].size
        if size is None:
            raise self.error(f"the axis to normalise has no size: {sources[0]}")
        self.scale = self.param("scale", (size,), 1.0)
        self.bias = self.param("bias", (size,), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised source."""
        at = self._axis(x.spec)
        last = at == x.spec.rank - 1
        data = x.data if last else x.data.movedim(at, -1)
        data = F.layer_norm(data, (data.shape[-1],), self.scale, self.bias, self.epsilon)
        return x.with_data(data if last else data.movedim(-1, at), self.spec(x.spec))


@layer("norm")
class Norm(Layer):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias over `axes`.  Shape: any -> the same

    Padding is not masked. `param_shape`: the axes of the parameters `scale` and `bias` (left out with False).
    """

    full_precision = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        axis: AxisText = None,
        axes: AxisText = None,
        param_shape: AxisText = "F",
        scale: bool = True,
        bias: bool = True,
        epsilon: NaturalFloat = 1e-6,
    ) -> None:
        super().__init__()
        if (axis is None) == (axes is None):
            raise self.error("give one of `axis` and `axes`")
        self.axes = axes if axis is None else axis
        self.param_shape = param_shape
        self.with_scale = scale
        self.with_bias = bias
        self.epsilon = epsilon

    def _param_axes(self, x: Spec) -> tuple[int, ...]:
        return tuple(sorted(find_axes(x, self.param_shape, option="param_shape")))

    def build(self, x: Spec) -> None:
        """`scale`, `bias`."""
        if x.sparse:
            raise self.error(f"needs dense input, but gets {x}")
        shape = tuple(x.dims[i].size for i in self._param_axes(x))
        if any(n is None for n in shape):
            raise self.error(f"`param_shape` must name static axes, but is {self.param_shape!r} instead: {x}")
        known = tuple(n for n in shape if n is not None)
        self.scale = self.param("scale", known, 1.0) if self.with_scale else None
        self.bias = self.param("bias", known, 0.0) if self.with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised source."""
        axes = find_axes(x.spec, self.axes, option="axes")
        data = normalize(x.data, axes, epsilon=self.epsilon)
        own = self._param_axes(x.spec)
        shape = [n if i in own else 1 for i, n in enumerate(x.data.shape)]
        if self.scale is not None:
            data = data * self.scale.reshape(shape)
        if self.bias is not None:
            data = data + self.bias.reshape(shape)
        return x.with_data(data)


@layer("math_norm")
class MathNorm(Layer):
    """(sum |x|^p)^(1/p) over `axes`, valid frames only.

    Shape: (B, T, F), axes="F" -> (B, T), or (B, T, 1) with `keep_dims`
    """

    full_precision = True

    def __init__(
        self, *, p: PositiveFloat, axis: AxisText = None, axes: AxisText = None, keep_dims: bool = False
    ) -> None:
        super().__init__()
        if (axis is None) == (axes is None):
            raise self.error("give one of `axis` and `axes`")
        if not p > 0:
            raise self.error(f"`p` must be greater than 0, but is {p} instead")
        self.p = float(p)
        self.axes = axes if axis is None else axis
        self.keep_dims = keep_dims

    def spec(self, x: Spec | None) -> Spec | None:
        """The source without the axes (or with size 1)."""
        if x is None:
            return None
        gone = find_axes(x, self.axes, option="axes")
        if not self.keep_dims:
            return x.without(gone)
        dims = tuple(self.dim(f"keep-dim:{i}", 1, d.kind) if i in gone else d for i, d in enumerate(x.dims))
        return Spec(dims, x.dtype, time=x.time, feature=x.feature, loop=x.loop)

    def forward(self, x: Tensor) -> Tensor:
        """The norm."""
        gone = find_axes(x.spec, self.axes, option="axes")
        data = torch.linalg.vector_norm(fill_padding(x, 0.0, gone), self.p, gone, keepdim=self.keep_dims)
        return x.with_data(data, self.spec(x.spec))
