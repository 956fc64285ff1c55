"""Convolutions over one to three axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import returnn_lite.ops.convolution as ops_convolution
from returnn_lite.frontend.conv_module import ConvModule, OverAxes, OverOneAxis
from returnn_lite.frontend.conv_sizes import (
    Numbers,
    Padding,
    checked_padding,
    declared,
    flattened,
    make_conv_out_spatial_dims,
    margins,
    number_of,
    per_axis,
    unflattened,
)
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of, show
from returnn_lite.frontend.sizes import use_mask_default
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.windows import Window


def masked_input(source: Tensor, spatial: Sequence[Dim], use_mask: bool | None, name: str, value: float = 0) -> Tensor:
    """The source, with its padding at a value if that is asked for, or the default: from version 23 on."""
    if use_mask is None:
        use_mask = use_mask_default(default=True, default_false_for_behavior_version_up_to=22, func_name=name)
    return source.copy_masked(value, dims=list(spatial)) if use_mask else source


def without(source: Tensor, dims: Sequence[Dim], what: str) -> Dims:
    """The axes of the source but these, which must be there."""
    for dim in dims:
        axis_of(source.dims, dim, f"{what}: {source}")
    return tuple(dim for dim in source.dims if dim not in dims)


def conv(
    source: Tensor,
    *,
    in_dim: Dim,
    out_dim: Dim,
    in_spatial_dims: Sequence[Dim],
    out_spatial_dims: Sequence[Dim] | None = None,
    filter: Tensor,  # noqa: A002 - the users' name
    filter_size: Sequence[Dim],
    padding: Padding,
    strides: Numbers | None = None,
    dilation_rate: Numbers | None = None,
    groups: int | None = None,
    bias: Tensor | None = None,
    use_mask: bool | None = None,
) -> tuple[Tensor, list[Dim]]:
    """A convolution (in torch's sense) over axes: (tensor, the new spatial axes).

    Axes: those beside `in_dim` and the spatial ones, then `out_dim`, then the spatial ones. filter: [out, in / groups,
    *filter_size]. padding: "same", "valid", or a number of zeros on both sides. use_mask: whether frames after the end
    count as 0.
    """
    count = len(in_spatial_dims)
    steps, dilations = ([number_of(n) for n in per_axis(v, count, 1)] for v in (strides or 1, dilation_rate or 1))
    batch = without(source, [in_dim, *in_spatial_dims], "conv")
    source = masked_input(source, in_spatial_dims, use_mask, "conv")
    made = make_conv_out_spatial_dims(
        in_spatial_dims, filter_size=filter_size, padding=padding, strides=steps, dilation_rate=dilations
    )
    outs = declared(made, out_spatial_dims)
    raw = flattened(source, batch, (in_dim, *in_spatial_dims))
    windows = windows_of(raw.shape[2:], [number_of(k) for k in filter_size], steps, dilations, padding)
    weights = _filter(filter, out_dim, filter_size)
    found = ops_convolution.convolution(
        raw,
        weights,
        None if bias is None else bias.raw_tensor,
        windows,
        ragged=[False] * count,
        groups=groups or 1,
    )
    dims = (*batch, out_dim, *outs)
    found = unflattened(found, source, batch)
    return source._new(found, dims, feature_axis=len(batch), name="conv"), outs


def windows_of(
    sizes: Sequence[int], filters: Sequence[int], steps: Sequence[int], dilations: Sequence[int], padding: Padding
) -> list[Window]:
    """The windows of a convolution along axes of these padded sizes, with their margins as numbers."""
    padding = checked_padding(padding)
    found = []
    for n, k, s, d in zip(sizes, filters, steps, dilations, strict=True):
        found.append(Window(k, s, d, margins(n, Window(k, s, d, padding))))
    return found


def _filter(weights: Tensor, out_dim: Dim, sizes: Sequence[Dim]) -> torch.Tensor:
    """The filter as [out, in, *sizes]."""
    dims, raw = weights.dims, weights.raw_tensor
    if dims[0] == out_dim and dims[2:] == tuple(sizes):
        return raw  # type: ignore[no-any-return]
    (in_part,) = (dim for dim in dims if dim != out_dim and dim not in sizes)
    return arranged(raw, dims, (out_dim, in_part, *sizes))  # type: ignore[no-any-return]


class _Conv(ConvModule):
    """Parameters: `filter` [out, in / groups, sizes …], `bias` [out]."""

    def __init__(
        self,
        in_dim: Dim,
        out_dim: Dim,
        filter_size: Numbers,
        *,
        padding: Padding,
        strides: Numbers | None = None,
        dilation_rate: Numbers | None = None,
        groups: int | None = None,
        with_bias: bool = True,
    ) -> None:
        self.in_dim, self.out_dim, self.padding = in_dim, out_dim, checked_padding(padding)
        self.strides, self.dilation_rate, self.groups = strides, dilation_rate, groups
        if groups and groups > 1 and (number_of(in_dim) % groups or number_of(out_dim) % groups):
            raise WrongUse(f"the axes {show([in_dim, out_dim])} must be multiples of the number of groups, {groups}")
        in_part = in_dim if not groups or groups == 1 else in_dim.div_left(groups)
        self._make_parameters(out_dim, in_part, filter_size, out_dim, with_bias)

    def _convolved(
        self, source: Tensor, spatial: Sequence[Dim], outs: Sequence[Dim] | None
    ) -> tuple[Tensor, list[Dim]]:
        return conv(
            source,
            in_dim=self.in_dim,
            out_dim=self.out_dim,
            in_spatial_dims=spatial,
            out_spatial_dims=outs,
            filter=self.filter,
            filter_size=self.filter_size,
            padding=self.padding,
            strides=self.strides,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            bias=self.bias,
        )


class Conv1d(_Conv, OverOneAxis):
    """A convolution over one axis."""


class Conv2d(_Conv, OverAxes):
    """A convolution over two axes."""

    nd = 2


class Conv3d(_Conv, OverAxes):
    """A convolution over three axes."""

    nd = 3
