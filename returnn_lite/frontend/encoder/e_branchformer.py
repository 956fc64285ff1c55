"""E-Branchformers (Kim et al., 2022): attention and gated convolution side by side."""

from __future__ import annotations

from typing import Any

from returnn_lite.frontend.building import DEFAULT_DIM, activation_of, as_dim, made, made_self_att, make_norm, specified
from returnn_lite.frontend.concat import concat_features
from returnn_lite.frontend.conv import Conv1d
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout as rf_dropout
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.elementwise import gelu, identity
from returnn_lite.frontend.encoder.conformer_parts import MacaronLayer
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.relative_attention import RelPosSelfAttention
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.not_specified import NotSpecified


class EBranchformerLayer(MacaronLayer):
    """½ feed-forward, attention and gated convolution merged, ½ feed-forward, each added; then a norm."""

    def __init__(
        self,
        out_dim: Dim = DEFAULT_DIM,
        *,
        ff: Any = NotSpecified,
        ff_dim: Any = NotSpecified,
        ff_activation: Any = NotSpecified,
        dropout: float = 0.1,
        num_heads: int = 4,
        self_att: Any = None,
        att_dropout: float = 0.1,
        cgmlp: Any = NotSpecified,
        cgmlp_ff_dim: Any = NotSpecified,
        cgmlp_conv_kernel: int = 31,
        merge_conv_kernel: int = 3,
        norm: Any = LayerNorm,
    ) -> None:
        self._make_feed_forward(out_dim, ff, ff_dim, ff_activation, dropout, norm)
        self.self_att = made_self_att(
            self_att, RelPosSelfAttention, out_dim=out_dim, num_heads=num_heads, att_dropout=att_dropout
        )
        self.self_att_layer_norm = make_norm(norm, out_dim)
        self.cgmlp = made(
            FeedForwardConvGated if cgmlp is NotSpecified or cgmlp is None else cgmlp,
            "cgmlp",
            **specified(out_dim=out_dim, ff_dim=cgmlp_ff_dim, dropout=dropout),
            kernel_size=cgmlp_conv_kernel,
        )
        self.cgmlp_layer_norm = make_norm(norm, out_dim)
        self.merge = Merge(in_dim1=out_dim, in_dim2=out_dim, out_dim=out_dim, merge_conv_kernel=merge_conv_kernel)
        self.final_layer_norm = make_norm(norm, out_dim)

    def __call__(self, inp: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        x = self._first_half(inp)
        attended = self._drop(self.self_att(self.self_att_layer_norm(x), axis=spatial_dim))
        local = self._drop(self.cgmlp(self.cgmlp_layer_norm(x), spatial_dim=spatial_dim))
        x = self._drop(self.merge(attended, local, spatial_dim=spatial_dim)) + x
        return self._second_half(x)


class FeedForwardConvGated(Module):
    """linear_out(dropout(gate(conv(norm(a))) · b)), a and b the halves of activation(linear_ff(x))."""

    def __init__(
        self,
        out_dim: Dim,
        *,
        ff_dim: Any = NotSpecified,
        kernel_size: int = 31,
        dropout: float = 0.1,
        activation: Any = gelu,
        gate_activation: Any = identity,
        with_bias: bool = True,
        norm: Any = LayerNorm,
    ) -> None:
        self.out_dim, self.dropout = out_dim, dropout
        self.dropout_broadcast = dropout_broadcast_default()
        given = ff_dim is not NotSpecified and ff_dim is not None
        inner = as_dim(ff_dim, "cgmlp-ff-dim") if given else 3 * out_dim
        self.activation, self.gate_activation = (
            activation_of(activation, gelu),
            activation_of(gate_activation, identity),
        )
        self.linear_ff = Linear(out_dim, 2 * inner, with_bias=with_bias)
        self.norm = make_norm(norm, inner)
        self.conv = Conv1d(inner, inner, kernel_size, padding="same", groups=inner.padded_size(), with_bias=with_bias)
        self.linear_out = Linear(inner, out_dim, with_bias=with_bias)

    def __call__(self, inp: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        both, inner = self.activation(self.linear_ff(inp)), self.linear_out.in_dim
        dims = (*both.dims[:-1], inner)
        halves = both.raw_tensor.chunk(2, -1)
        first, second = (both._new(raw, dims, feature_axis=len(dims) - 1) for raw in halves)
        local, _ = self.conv(self.norm(first), in_spatial_dim=spatial_dim)
        gated = self.gate_activation(local) * second
        return self.linear_out(rf_dropout(gated, self.dropout, axis=self.dropout_broadcast and inner))


class Merge(Module):
    """merge_proj(c + depthwise_conv_fusion(c)), c both inputs' features one after the other."""

    def __init__(self, *, in_dim1: Dim, in_dim2: Dim, out_dim: Dim, merge_conv_kernel: int = 3) -> None:
        self.in_dim1, self.in_dim2, self.out_dim = in_dim1, in_dim2, out_dim
        both = in_dim1 + in_dim2
        self.depthwise_conv_fusion = Conv1d(both, both, merge_conv_kernel, padding="same", groups=both.padded_size())
        self.merge_proj = Linear(both, out_dim)

    def __call__(self, first: Tensor, second: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the inputs without their features, then `out_dim`."""
        both = concat_features(first, second)
        fused, _ = self.depthwise_conv_fusion(both, in_spatial_dim=spatial_dim)
        return self.merge_proj(both + fused)
