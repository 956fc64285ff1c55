"""Transposed convolutions over one to three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import returnn_lite.ops.convolution as ops_convolution
from returnn_lite.frontend.conv import masked_input, without
from returnn_lite.frontend.conv_module import ConvModule, OverAxes, OverOneAxis
from returnn_lite.frontend.conv_sizes import (
    Numbers,
    Padding,
    checked_padding,
    declared,
    flattened,
    make_transposed_conv_out_spatial_dims,
    number_of,
    per_axis,
    spread_of,
    unflattened,
)
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import PerAxis


def transposed_conv(
    source: Tensor,
    *,
    in_dim: Dim,
    out_dim: Dim,
    in_spatial_dims: Sequence[Dim],
    out_spatial_dims: Sequence[Dim] | None = None,
    filter: Tensor,  # noqa: A002 - the users' name
    filter_size: Sequence[Dim],
    padding: Padding,
    remove_padding: Numbers = 0,
    output_padding: PerAxis = None,
    strides: Numbers | None = None,
    bias: Tensor | None = None,
    use_mask: bool | None = None,
) -> tuple[Tensor, list[Dim]]:
    """A transposed convolution: (tensor, the new spatial axes). filter: [in, out, *filter_size]; axes as of `conv`."""
    count = len(in_spatial_dims)
    sizes = [number_of(k) for k in filter_size]
    steps = sizes if strides is None else [number_of(s) for s in per_axis(strides, count)]
    removed = per_axis(remove_padding, count)
    added: list[int | None] = [None] * count if output_padding is None else per_axis(output_padding, count)
    batch = without(source, [in_dim, *in_spatial_dims], "transposed_conv")
    source = masked_input(source, in_spatial_dims, use_mask, "transposed_conv")
    made = make_transposed_conv_out_spatial_dims(
        in_spatial_dims,
        filter_size=sizes,
        padding=padding,
        remove_padding=removed,
        output_padding=output_padding,
        strides=steps,
    )
    outs = declared(made, out_spatial_dims)
    spreads = [spread_of(k, s, padding, r, o) for k, s, r, o in zip(sizes, steps, removed, added, strict=True)]
    raw = flattened(source, batch, (in_dim, *in_spatial_dims))
    found = ops_convolution.transposed_convolution(raw, filter.raw_tensor, spreads)
    if bias is not None:
        found = found + bias.raw_tensor.reshape(-1, *[1] * count)
    found = unflattened(found, source, batch)
    return source._new(found, (*batch, out_dim, *outs), feature_axis=len(batch), name="transposed_conv"), outs


class _TransposedConv(ConvModule):
    """Parameters: `filter` [in, out, sizes …], `bias` [out]. By default the strides are the filter sizes."""

    def __init__(
        self,
        in_dim: Dim,
        out_dim: Dim,
        filter_size: Numbers,
        *,
        padding: Padding,
        remove_padding: Numbers = 0,
        output_padding: Any = None,
        strides: Numbers | None = None,
        with_bias: bool = True,
    ) -> None:
        self.in_dim, self.out_dim, self.padding = in_dim, out_dim, checked_padding(padding)
        self.remove_padding, self.output_padding, self.strides = remove_padding, output_padding, strides
        self._make_parameters(in_dim, out_dim, filter_size, out_dim, with_bias)

    def _convolved(
        self, source: Tensor, spatial: Sequence[Dim], outs: Sequence[Dim] | None
    ) -> tuple[Tensor, list[Dim]]:
        return transposed_conv(
            source,
            in_dim=self.in_dim,
            out_dim=self.out_dim,
            in_spatial_dims=spatial,
            out_spatial_dims=outs,
            filter=self.filter,
            filter_size=self.filter_size,
            padding=self.padding,
            remove_padding=self.remove_padding,
            output_padding=self.output_padding,
            strides=self.strides,
            bias=self.bias,
        )


class TransposedConv1d(_TransposedConv, OverOneAxis):
    """A transposed convolution over one axis."""


class TransposedConv2d(_TransposedConv, OverAxes):
    """A transposed convolution over two axes."""

    nd = 2


class TransposedConv3d(_TransposedConv, OverAxes):
    """A transposed convolution over three axes."""

    nd = 3
