"""What conformers, their two-part form and e-branchformers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend.building import made, make_norm, specified, stacked
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout as rf_dropout
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.elementwise import swish
from returnn_lite.frontend.encoder.base import ISeqDownsamplingEncoder, ISeqFramewiseEncoder
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.feed_forward import FeedForward, made_ff
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.linear import Linear
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Part


class ConformerPositionwiseFeedForward(FeedForward):
    """`FeedForward` with the activation swish."""

    __module__ = "returnn_lite.frontend.encoder.conformer"  # where configs import it from
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


class MacaronLayer(ISeqFramewiseEncoder):
    """½ feed-forward, something in between, ½ feed-forward, each added; then a norm (Lu et al., 2019)."""

    final_layer_norm: Any

    def _make_feed_forward(
        self, out_dim: Dim, ff: ConfigValue, ff_dim: ConfigValue, ff_activation: ConfigValue, dropout: float, norm: Any
    ) -> None:
        self.dropout, self.out_dim = dropout, out_dim
        self.dropout_broadcast = dropout_broadcast_default()
        options = {"out_dim": out_dim, "ff": ff, "ff_dim": ff_dim, "ff_activation": ff_activation, "dropout": dropout}
        self.ffn1 = make_ff(**options)
        self.ffn1_layer_norm = make_norm(norm, out_dim)
        self.ffn2 = make_ff(**options)
        self.ffn2_layer_norm = make_norm(norm, out_dim)

    def _drop(self, x: Tensor) -> Tensor:
        return rf_dropout(x, self.dropout, axis=self.dropout_broadcast and self.out_dim)

    def _first_half(self, x: Tensor) -> Tensor:
        return self._drop(self.ffn1(self.ffn1_layer_norm(x))) * 0.5 + x

    def _second_half(self, x: Tensor) -> Tensor:
        x = self._drop(self.ffn2(self.ffn2_layer_norm(x))) * 0.5 + x
        return self.final_layer_norm(x)  # type: ignore[no-any-return]


class WithInputLayer(ISeqDownsamplingEncoder):
    """What comes before the layers: `input_layer`, `input_projection` to `out_dim`, a factor, dropout."""

    def _make_input(self, in_dim: Dim, out_dim: Dim, input_layer: ConfigValue, input_dropout: float) -> None:
        self.in_dim, self.out_dim, self.input_dropout = in_dim, out_dim, input_dropout
        self.dropout_broadcast = dropout_broadcast_default()
        self.input_layer = _input_layer(input_layer, in_dim)
        self.downsample_factor = getattr(self.input_layer, "downsample_factor", 1)
        self.input_projection: Any = None
        self.input_embedding_scale = 1.0

    def _input(self, source: Tensor, time: Dim) -> tuple[Tensor, Dim]:
        """(tensor, its axis of time). Features of a later stage skip what makes them."""
        x, layer = source, self.input_layer
        if layer is not None and getattr(layer, "in_dim", None) in (None, *source.dims):
            x, time = layer(source, in_spatial_dim=time)
        if self.input_projection is not None and self.input_projection.in_dim in x.dims:
            x = self.input_projection(x)
        if self.out_dim not in x.dims:
            text = f"must have the axis {show([self.in_dim])}"
            raise WrongUse(f"{type(self).__name__}: the input {source} {text}")
        return (x if self.input_embedding_scale == 1 else x * self.input_embedding_scale), time

    def _drop_input(self, x: Tensor) -> Tensor:
        return rf_dropout(x, self.input_dropout, axis=self.dropout_broadcast and self.out_dim)

    def _make_projection(self, inner: Dim) -> None:
        self.input_projection = Linear(inner, self.out_dim, with_bias=False)


def _input_layer(given: ConfigValue, in_dim: Dim) -> Part:
    """The first layer of an encoder: built of a dict, or as it is."""
    if isinstance(given, Mapping | type):
        return made(given, "input_layer", in_dim)
    if given is not None and not callable(given):
        raise WrongUse(f"`input_layer` must be a module, a dict from rf.build_dict or None, but is {given!r} instead")
    return given


def made_layers(
    layer: ConfigValue,
    opts: Mapping[str, ConfigValue] | None,
    count: int,
    sequential: Part,
    **options: ConfigValue,
) -> Part:
    """The layers of an encoder, of what it is given for one; the options of a dict win, then `opts`."""
    template = made(layer, "encoder_layer", **{**specified(**options), **(opts or {})})
    return stacked(sequential, template, count)
