"""Conformers (Gulati et al., 2020)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend.batch_norm import BatchNorm
from returnn_lite.frontend.building import DEFAULT_DIM, as_dim, made, make_norm, positions_of, specified, stacked
from returnn_lite.frontend.containers import Sequential
from returnn_lite.frontend.conv import Conv1d
from returnn_lite.frontend.defaults import option
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout as rf_dropout
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.elementwise import swish
from returnn_lite.frontend.encoder.base import ISeqDownsamplingEncoder, ISeqFramewiseEncoder
from returnn_lite.frontend.encoder.conv_subsample import ConformerConvSubsample
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.feed_forward import FeedForward, made_ff
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.relative_attention import RelPosSelfAttention
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Part
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


class ConformerPositionwiseFeedForward(FeedForward):
    """`FeedForward` with the activation swish."""

    __module__ = __name__
    default_activation = staticmethod(swish)


def make_ff(*, out_dim: Dim, ff: ConfigValue, ff_dim: ConfigValue, ff_activation: ConfigValue, dropout: float) -> Part:
    """A feed-forward block of what a layer is given: nothing, a class, a dict, a module."""
    return made_ff(
        ConformerPositionwiseFeedForward,
        out_dim=out_dim,
        ff=ff,
        ff_dim=ff_dim,
        ff_activation=ff_activation,
        dropout=dropout,
    )


def conv_norm_use_mask_default() -> bool | None:
    """Whether padding counts not in the norm of a convolution block: option `rf_conformer_conv_norm_use_mask`.

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


class ConformerEncoderLayer(ISeqFramewiseEncoder):
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
        self.dropout, self.out_dim = dropout, out_dim
        self.dropout_broadcast = dropout_broadcast_default()
        options = {"out_dim": out_dim, "ff": ff, "ff_dim": ff_dim, "ff_activation": ff_activation, "dropout": dropout}
        self.ffn1 = make_ff(**options)
        self.ffn1_layer_norm = make_norm(norm, out_dim)
        self.ffn2 = make_ff(**options)
        self.ffn2_layer_norm = make_norm(norm, out_dim)
        conv_norm = _made_conv_norm(conv_norm, out_dim, conv_norm_opts)
        self.conv_block = ConformerConvBlock(out_dim, kernel_size=conv_kernel_size, norm=conv_norm)
        self.conv_layer_norm = make_norm(norm, out_dim)
        heads = {
            **{"in_dim": out_dim, "proj_dim": out_dim, "key_dim_total": out_dim, "value_dim_total": out_dim},
            **{"num_heads": num_heads, "att_dropout": att_dropout},
            **(self_att_opts or {}),
        }
        self.self_att: Any
        if self_att is None or isinstance(self_att, type | Mapping):
            self.self_att = made(RelPosSelfAttention if self_att is None else self_att, "self_att", **heads)
        else:
            self.self_att = self_att
        self.self_att_layer_norm = make_norm(norm, out_dim)
        self.final_layer_norm = make_norm(norm, out_dim)

    def _drop(self, x: Tensor) -> Tensor:
        return rf_dropout(x, self.dropout, axis=self.dropout_broadcast and self.out_dim)

    def __call__(self, inp: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        x = self._drop(self.ffn1(self.ffn1_layer_norm(inp))) * 0.5 + inp
        x = self._drop(self.self_att(self.self_att_layer_norm(x), axis=spatial_dim)) + x
        x = self._drop(self.conv_block(self.conv_layer_norm(x), spatial_dim=spatial_dim)) + x
        x = self._drop(self.ffn2(self.ffn2_layer_norm(x))) * 0.5 + x
        return self.final_layer_norm(x)  # type: ignore[no-any-return]


def layer_template(layer: ConfigValue, opts: Mapping[str, ConfigValue] | None, **options: ConfigValue) -> Part:
    """A conformer layer of what an encoder is given; the options of a dict win, then `opts`."""
    layer = ConformerEncoderLayer if layer is None else layer
    return made(layer, "encoder_layer", **{**specified(**options), **(opts or {})})


def input_layer_of(given: ConfigValue, in_dim: Dim) -> Part:
    """The first layer of an encoder: built of a dict, or as it is."""
    if isinstance(given, Mapping | type):
        return made(given, "input_layer", in_dim)
    if given is not None and not callable(given):
        raise WrongUse(f"`input_layer` must be a module, a dict from rf.build_dict or None, but is {given!r} instead")
    return given


class ConformerEncoder(ISeqDownsamplingEncoder):
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
        self.in_dim, self.out_dim = in_dim, as_dim(out_dim, "conformer-out-dim")
        self.dropout, self.dropout_broadcast = dropout, dropout_broadcast_default()
        self.input_layer = input_layer_of(input_layer, in_dim)
        inner: Dim = getattr(self.input_layer, "out_dim", in_dim)
        self.input_projection: Any = None
        if inner != self.out_dim:
            self.input_projection = Linear(inner, self.out_dim, with_bias=False)
        self.downsample_factor = getattr(self.input_layer, "downsample_factor", 1)
        self.pos_enc = positions_of(pos_enc, self.out_dim)
        if input_embedding_scale is None:
            input_embedding_scale = 1.0 if pos_enc is None else math.sqrt(self.out_dim.padded_size())
        self.input_embedding_scale, self.input_dropout = input_embedding_scale, input_dropout
        template = layer_template(
            encoder_layer,
            encoder_layer_opts,
            out_dim=self.out_dim,
            ff_dim=ff_dim,
            ff_activation=ff_activation,
            dropout=dropout,
            conv_kernel_size=conv_kernel_size,
            conv_norm=conv_norm,
            num_heads=num_heads,
            att_dropout=att_dropout,
        )
        self.layers = stacked(sequential, template, num_layers)
        self.num_layers = num_layers

    def __call__(
        self, source: Tensor, *, in_spatial_dim: Dim, collected_outputs: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Dim]:
        """(tensor, its axis of time). Features of a later stage skip what makes them."""
        x, time = through_input_layer(self.input_layer, source, in_spatial_dim)
        if self.input_projection is not None and self.input_projection.in_dim in x.dims:
            x = self.input_projection(x)
        if self.out_dim not in x.dims:
            raise WrongUse(f"ConformerEncoder: the input {source} must have the axis {show([self.in_dim])}")
        if self.input_embedding_scale != 1:
            x = x * self.input_embedding_scale
        if self.pos_enc is not None:
            x = x + self.pos_enc(spatial_dim=time)
        x = rf_dropout(x, self.input_dropout, axis=self.dropout_broadcast and self.out_dim)
        return self.layers(x, spatial_dim=time, collected_outputs=collected_outputs), time


def through_input_layer(layer: Part, source: Tensor, time: Dim) -> tuple[Tensor, Dim]:
    """(tensor, its axis of time) behind the first layer, if the source has its input axis."""
    if layer is None or getattr(layer, "in_dim", None) not in (None, *source.dims):
        return source, time
    found: tuple[Tensor, Dim] = layer(source, in_spatial_dim=time)
    return found
