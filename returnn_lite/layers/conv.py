"""`conv`: convolution over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from returnn_lite.config.option_types import NaturalInt, PositiveFloat, PositiveInt
from returnn_lite.layers.activations import activated
from returnn_lite.layers.activations import activation as find_activation
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.spatial import (
    channels_first,
    channels_last,
    moved_axes,
    ragged,
    spatial_axes,
    window_spec,
    windows,
)
from returnn_lite.ops.convolution import convolution
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import FEATURE, SPATIAL
from returnn_lite.tensor.masked import fill_padding

BIAS_SINCE = 10  # behaviour version from which a convolution has a bias unless told otherwise


@layer("conv")
class Conv(Layer):
    """y[o] = sum_k x[o * stride + k * dilation - left] W[k], plus bias, then the activation.

    Shape: (B, T, F) -> (B, T', n_out)

    Parameters: `W` (filter …, F / groups, n_out), `bias` (n_out,). Spatial axes: all but batch and features, or
    `in_spatial_dims`; others are batch axes and come first; `out_spatial_dims`: Dims of the resulting axes. Before
    that `input_expand_dims` adds spatial axes of size 1, `input_split_feature_dim` d makes F a spatial axis F / d and d
    features, `input_add_feature_dim` makes F a spatial axis. `padding`: "same" (by the longest sequence of the batch),
    "valid", "same_static" or a number. Frames after a sequence end count as they are, unless `use_time_mask`.
    `filter`, `bias`: layers used instead of parameters.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        filter_size: Any,
        padding: Any,
        n_out: PositiveInt | None = None,
        strides: Any = 1,
        dilation_rate: Any = 1,
        groups: PositiveInt = 1,
        input_expand_dims: NaturalInt = 0,
        input_add_feature_dim: bool = False,
        input_split_feature_dim: PositiveInt | None = None,
        in_spatial_dims: AxisText = None,
        out_spatial_dims: Sequence[Dim] | None = None,
        with_bias: bool | None = None,
        activation: str | None = None,
        forward_weights_init: Any = "glorot_uniform",
        bias_init: Any = 0.0,
        filter: LayerRef | None = None,  # noqa: A002 - the config word
        filter_perm: Mapping[str, Any] | Sequence[AxisText] | None = None,
        bias: LayerRef | None = None,
        use_time_mask: bool = False,
        pad_seq_len_to_power: PositiveFloat | None = None,
        auto_use_channel_first: bool | None = None,
    ) -> None:
        super().__init__()
        self.windows = windows(filter_size, strides, dilation_rate, padding)
        if not 1 <= len(self.windows) <= 3:
            raise self.error(f"`filter_size` must have 1 to 3 entries, but has {len(self.windows)} instead")
        self.n_out = n_out
        self.groups = groups
        self.expand_dims = input_expand_dims
        self.add_feature_dim = input_add_feature_dim
        self.split_feature_dim = input_split_feature_dim
        self.in_spatial_dims = in_spatial_dims
        self.out_spatial_dims = out_spatial_dims
        self.with_bias = with_bias
        self.activation_text = activation
        self.activation = find_activation(None)
        self.weights_init = forward_weights_init
        self.bias_init = bias_init
        self.filter = filter
        self.filter_perm = filter_perm
        self.bias: Any = bias  # the name of a layer until `build`
        self.use_time_mask = use_time_mask
        self.inner: dict[Spec, tuple[Spec, tuple[int, ...]]] = {}

    # --- axes ---------------------------------------------------------------------------------------------------------

    def prepared(self, x: Spec) -> Spec:
        """The input with the axes that the options add."""
        if x.sparse:
            raise self.error(f"needs dense input, but gets {x}")
        for i in range(self.expand_dims):
            behind = x.spatial[-1] + 1 if x.spatial else x.rank if x.feature is None else x.feature
            x = x.with_dims((*x.dims[:behind], self.dim(f"expanded:{i}", 1, SPATIAL), *x.dims[behind:]))
        if self.split_feature_dim:
            x = self._split(x, self.split_feature_dim)
        if self.add_feature_dim:
            new = self.dim("input-feature", 1)
            x = x.with_dims((*x.dims, new), feature=x.rank)
        if x.feature is None:
            raise self.error(f"the source needs a feature axis (or give `input_add_feature_dim`), but is {x} instead")
        return x

    def _split(self, x: Spec, size: int) -> Spec:
        """The feature axis F as F / size spatial positions of `size` features."""
        if x.feature is None or not x.dim or x.dim % size:
            raise self.error(f"`input_split_feature_dim` must divide the features, but is {size} for {x}")
        parts = (self.dim("split-spatial", x.dim // size, SPATIAL), self.dim("split-feature", size))
        dims = (*x.dims[: x.feature], *parts, *x.dims[x.feature + 1 :])
        return x.with_dims(dims, feature=x.feature + 1)

    def _axes(self, x: Spec) -> tuple[int, ...]:
        return spatial_axes(x, self.in_spatial_dims, len(self.windows), self.behavior)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch axes, spatial axes with new lengths, features."""
        if x is None:
            return None
        x = self.prepared(x)
        axes = self._axes(x)
        new = moved_axes(self, x, axes, self.windows, "conv:s")
        return window_spec(x, axes, new, self._out_dim(refs.get("filter")))

    def _out_dim(self, filter_spec: Spec | None) -> Dim:
        if self.n_out is None and filter_spec is not None and filter_spec.dim is not None:
            return filter_spec.dims[-1].as_kind(FEATURE)
        return self.feature_dim(self.n_out, name="channel")

    # --- parameters ---------------------------------------------------------------------------------------------------

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`W`, `bias`."""
        self.activation = find_activation(self.activation_text, self.context.eval_names, path=self.path)
        out = self.spec(*sources, **refs)
        n_in, n_out = self.prepared(sources[0]).dim, out.dim if out is not None else None
        if n_in is None or n_out is None:
            raise self.error(f"the feature axis of the source has no size: {sources[0]}")
        if n_in % self.groups or n_out % self.groups:
            raise self.error(f"`groups` must divide input ({n_in}) and output ({n_out}) features, but is {self.groups}")
        if self.filter is None:
            shape = (*(w.size for w in self.windows), n_in // self.groups, n_out)
            self.W = self.param("W", shape, self.weights_init)
        with_bias = self.behavior >= BIAS_SINCE if self.with_bias is None else self.with_bias
        own = with_bias and self.bias is None
        del self.bias
        self.bias = self.param("bias", (n_out,), self.bias_init) if own else None

    def _weights(self, given: Tensor | None) -> torch.Tensor:
        """The filter as torch wants it: (n_out, F / groups, filter …)."""
        weights = self.W if given is None else self._given_filter(given)
        rank = weights.dim()
        return weights.permute((rank - 1, rank - 2, *range(rank - 2)))

    def _given_filter(self, given: Tensor) -> torch.Tensor:
        perm = self.filter_perm
        if perm is None:
            return given.data
        named = [perm[k] for k in perm] if isinstance(perm, Mapping) else list(perm)
        return given.data.permute([find_axis(given.spec, a, option="filter_perm") for a in named])

    # --- running ------------------------------------------------------------------------------------------------------

    def _inner(self, x: Spec) -> tuple[Spec, tuple[int, ...]]:
        """The input with the axes that the options add, and its spatial axes; found out once."""
        if x not in self.inner:
            prepared = self.prepared(x)
            self.inner[x] = prepared, self._axes(prepared)
        return self.inner[x]

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The convolved source."""
        out = self.spec(x.spec, **{k: t.spec for k, t in refs.items()})
        inner, axes = self._inner(x.spec)
        if inner is not x.spec:
            x = x.with_data(x.data.reshape([x.size(d) if d in x.spec.dims else d.size or 1 for d in inner.dims]), inner)
        if self.use_time_mask:
            x = x.with_data(fill_padding(x, 0.0, axes))
        data, lead = channels_first(x, axes)
        bias = refs["bias"].data.reshape(-1) if "bias" in refs else self.bias
        weights = self._weights(refs.get("filter"))
        data = convolution(data, weights, bias, self.windows, ragged=ragged(x, axes), groups=self.groups)
        data = channels_last(data, lead)
        return activated(x.with_data(data, out), self.activation, -1, self.options)
