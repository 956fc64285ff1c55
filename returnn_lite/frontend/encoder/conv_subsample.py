"""`ConformerConvSubsample`: convolutions and poolings over time and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from returnn_lite.frontend.axes import merge_dims
from returnn_lite.frontend.building import activation_of, as_dim
from returnn_lite.frontend.containers import ModuleList
from returnn_lite.frontend.conv import Conv2d
from returnn_lite.frontend.conv_sizes import Padding, make_conv_out_spatial_dims, number_of
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import relu
from returnn_lite.frontend.encoder.base import ISeqDownsamplingEncoder
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.pool import pool2d
from returnn_lite.frontend.tensor import Tensor

Pair = int | tuple[int, int]
_MODULE = "returnn_lite.frontend.encoder.conformer"  # how configs import it


class ConformerConvSubsample(ISeqDownsamplingEncoder):
    """2-D convolutions over (time, features), each with an activation and maybe a pooling; then all are features.

    out_dims: channels of each convolution. filter_sizes, strides, pool_sizes: numbers, or (time, features).
    """

    __module__ = _MODULE

    def __init__(
        self,
        in_dim: Dim,
        *,
        out_dims: Sequence[int | Dim],
        filter_sizes: Sequence[Pair],
        strides: Pair | Sequence[Pair] | None = None,
        pool_sizes: Sequence[Pair] | None = None,
        activation: Any = relu,
        padding: Padding = "same",
    ) -> None:
        self.in_dim = in_dim
        self.pool_sizes = [_pair(size) for size in pool_sizes or ()]
        self.activation = activation_of(activation, relu)
        count = len(out_dims)
        if strides is None or isinstance(strides, int):
            strides = [strides or 1] * count
        if not len(filter_sizes) == len(strides) == count or len(self.pool_sizes) > count:
            raise WrongUse("filter_sizes, strides and pool_sizes must have one entry for each of the out_dims")
        self.strides = [_pair(stride) for stride in strides]
        self._dummy_in_dim = Dim(1, name="channel")
        self.conv_layers: Any = ModuleList()
        before = self._dummy_in_dim
        features, factor = in_dim, 1
        for i, (size, filters) in enumerate(zip(out_dims, filter_sizes, strict=True)):
            channels = as_dim(size, f"conv-{i}")
            layer = Conv2d(before, channels, _pair(filters), padding=padding, strides=self.strides[i])
            self.conv_layers.append(layer)
            (features,) = make_conv_out_spatial_dims(
                [features],
                filter_size=number_of(layer.filter_size[1]),
                strides=self.strides[i][1],
                padding=padding,
            )
            factor *= self.strides[i][0]
            if i < len(self.pool_sizes):
                pooling = self.pool_sizes[i]
                (features,) = make_conv_out_spatial_dims(
                    [features], filter_size=pooling[1], strides=pooling[1], padding="same"
                )
                factor *= pooling[0]
            before = channels
        self.downsample_factor = factor
        self._final_second_spatial_dim = features
        self.out_dim = features * before

    def __call__(self, source: Tensor, *, in_spatial_dim: Dim) -> tuple[Tensor, Dim]:
        """(tensor, its axis of time). Axes: batch axes, `out_dim`, time."""
        at = len(source.dims)
        x = source._new(source.raw_tensor.unsqueeze(at), (*source.dims, self._dummy_in_dim), feature_axis=at)
        spatial = [in_spatial_dim, self.in_dim]
        for i, layer in enumerate(self.conv_layers):
            x, spatial = layer(x, in_spatial_dims=spatial)
            x = self.activation(x)
            if i < len(self.pool_sizes):
                size = self.pool_sizes[i]
                x, spatial = pool2d(x, mode="max", pool_size=size, padding="same", in_spatial_dims=spatial)
        channels = self.conv_layers[-1].out_dim
        found, _ = merge_dims(x, dims=[spatial[1], channels], out_dim=self.out_dim)
        found.feature_dim = self.out_dim
        return found, spatial[0]

    def get_out_spatial_dim(self, in_spatial_dim: Dim) -> Dim:
        """The axis of time that a call gives for this one."""
        found = in_spatial_dim
        for i, layer in enumerate(self.conv_layers):
            (found,) = make_conv_out_spatial_dims(
                [found],
                filter_size=number_of(layer.filter_size[0]),
                strides=self.strides[i][0],
                padding=layer.padding,
            )
            if i < len(self.pool_sizes):
                size = self.pool_sizes[i][0]
                (found,) = make_conv_out_spatial_dims([found], filter_size=size, strides=size, padding="same")
        return found


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, Sequence):
        first, second = value
        return number_of(first), number_of(second)
    return number_of(value), number_of(value)
