"""Conformers (Gulati et al., 2020)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.frontend.batch_norm import BatchNorm
from returnn_lite.frontend.building import DEFAULT_DIM, as_dim, made, made_self_att, make_norm, positions_of
from returnn_lite.frontend.containers import Sequential
from returnn_lite.frontend.conv import Conv1d
from returnn_lite.frontend.defaults import option
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.elementwise import swish
from returnn_lite.frontend.encoder.conformer_parts import (
    ConformerPositionwiseFeedForward,
    MacaronLayer,
    WithInputLayer,
    made_layers,
    make_ff,
)
from returnn_lite.frontend.encoder.conv_subsample import ConformerConvSubsample
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.relative_attention import RelPosSelfAttention
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.not_specified import NotSpecified

__all__ = [
    "ConformerConvBlock",
    "ConformerConvSubsample",
    "ConformerEncoder",
    "ConformerEncoderLayer",
    "ConformerPositionwiseFeedForward",
    "conv_norm_use_mask_default",
    "make_ff",
    "make_norm",
]


def conv_norm_use_mask_default() -> bool | None:
    """Whether the norm of a convolution block masks padding: option `rf_conformer_conv_norm_use_mask`.

    Up to version 28 it counts; from then on as `BatchNorm` has it.
    """
    found = option("rf_conformer_conv_norm_use_mask")
    return found if found is not None else False if BehaviorVersion.get() <= 28 else None


class ConformerConvBlock(Module):
    """Product, gate, convolution of each feature over time, norm, swish, product."""

    def __init__(self, out_dim: Dim, *, kernel_size: int, norm: Any) -> None:
        if not callable(norm):
            raise WrongUse(f"`norm` of a ConformerConvBlock must be a module or function, but is {norm!r} instead")
        self.out_dim = out_dim
        self.positionwise_conv1 = Linear(out_dim, 2 * out_dim)
        self.depthwise_conv = Conv1d(
            out_dim, out_dim, filter_size=kernel_size, groups=out_dim.padded_size(), padding="same"
        )
        self.positionwise_conv2 = Linear(out_dim, out_dim)
        self.norm = norm

    def __call__(self, inp: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        both = self.positionwise_conv1(inp)
        first, gate = both.raw_tensor.chunk(2, -1)
        dims = (*both.dims[:-1], self.out_dim)
        x = both._new(first * gate.sigmoid(), dims, feature_axis=len(dims) - 1)
        x, _ = self.depthwise_conv(x, in_spatial_dim=spatial_dim)
        x = self.norm(x, spatial_dim=spatial_dim) if _takes_spatial_dim(self.norm) else self.norm(x)
        return self.positionwise_conv2(swish(x))


def _takes_spatial_dim(norm: Any) -> bool:
    call = type(norm).__call__ if isinstance(norm, Module) else norm
    return "spatial_dim" in inspect.signature(call).parameters


def _made_conv_norm(given: Any, out_dim: Dim, opts: Mapping[str, Any] | None) -> Any:
    options = dict(opts or {})
    if given is NotSpecified or given is BatchNorm:
        options.setdefault("use_mask", conv_norm_use_mask_default())
        return BatchNorm(out_dim, **options)
    if isinstance(given, Module) or not isinstance(given, type | Mapping):
        if not callable(given):
            raise WrongUse(f"`conv_norm` must be a class, a dict or a module, but is {given!r} instead")
        return given
    return made(given, "conv_norm", out_dim, **options)


class ConformerEncoderLayer(MacaronLayer):
    """½ feed-forward, self-attention, convolution, ½ feed-forward, each of a norm and added; then a norm."""

    def __init__(
        self,
        out_dim: Dim = DEFAULT_DIM,
        *,
        ff: Any = NotSpecified,
        ff_dim: Any = NotSpecified,
        ff_activation: Any = NotSpecified,
        dropout: float = 0.1,
        conv_kernel_size: int = 32,
        conv_norm: Any = NotSpecified,
        conv_norm_opts: Mapping[str, Any] | None = None,
        num_heads: int = 4,
        self_att: Any = None,
        self_att_opts: Mapping[str, Any] | None = None,
        att_dropout: float = 0.1,
        norm: Any = LayerNorm,
    ) -> None:
        self._make_feed_forward(out_dim, ff, ff_dim, ff_activation, dropout, norm)
        conv_norm = _made_conv_norm(conv_norm, out_dim, conv_norm_opts)
        self.conv_block = ConformerConvBlock(out_dim, kernel_size=conv_kernel_size, norm=conv_norm)
        self.conv_layer_norm = make_norm(norm, out_dim)
        self.self_att: Any = made_self_att(
            self_att,
            RelPosSelfAttention,
            out_dim=out_dim,
            num_heads=num_heads,
            att_dropout=att_dropout,
            options=self_att_opts,
        )
        self.self_att_layer_norm = make_norm(norm, out_dim)
        self.final_layer_norm = make_norm(norm, out_dim)

    def __call__(self, inp: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        x = self._first_half(inp)
        x = self._drop(self.self_att(self.self_att_layer_norm(x), axis=spatial_dim)) + x
        x = self._drop(self.conv_block(self.conv_layer_norm(x), spatial_dim=spatial_dim)) + x
        return self._second_half(x)


class ConformerEncoder(WithInputLayer):
    """`input_layer`, `input_projection` to `out_dim`, positions, dropout, layers."""

    def __init__(
        self,
        in_dim: Dim,
        out_dim: int | Dim = DEFAULT_DIM,
        *,
        num_layers: int,
        input_layer: Any,
        input_embedding_scale: float | None = None,
        pos_enc: Any = None,
        input_dropout: float = 0.1,
        ff_dim: Any = NotSpecified,
        ff_activation: Any = NotSpecified,
        dropout: float = 0.1,
        conv_kernel_size: Any = NotSpecified,
        conv_norm: Any = NotSpecified,
        num_heads: int = 4,
        att_dropout: float = 0.1,
        encoder_layer: Any = None,
        encoder_layer_opts: Mapping[str, Any] | None = None,
        sequential: Any = Sequential,
    ) -> None:
        self.dropout = dropout
        self._make_input(in_dim, as_dim(out_dim, "conformer-out-dim"), input_layer, input_dropout)
        inner: Dim = getattr(self.input_layer, "out_dim", in_dim)
        if inner != self.out_dim:
            self._make_projection(inner)
        self.pos_enc = positions_of(pos_enc, self.out_dim)
        if input_embedding_scale is None:
            input_embedding_scale = 1.0 if pos_enc is None else math.sqrt(self.out_dim.padded_size())
        self.input_embedding_scale = input_embedding_scale
        self.layers = made_layers(
            ConformerEncoderLayer if encoder_layer is None else encoder_layer,
            encoder_layer_opts,
            num_layers,
            sequential,
            out_dim=self.out_dim,
            ff_dim=ff_dim,
            ff_activation=ff_activation,
            dropout=dropout,
            conv_kernel_size=conv_kernel_size,
            conv_norm=conv_norm,
            num_heads=num_heads,
            att_dropout=att_dropout,
        )
        self.num_layers = num_layers

    def __call__(
        self, source: Tensor, *, in_spatial_dim: Dim, collected_outputs: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Dim]:
        """(tensor, its axis of time). Features of a later stage skip what makes them."""
        x, time = self._input(source, in_spatial_dim)
        if self.pos_enc is not None:
            x = x + self.pos_enc(spatial_dim=time)
        return self.layers(self._drop_input(x), spatial_dim=time, collected_outputs=collected_outputs), time
