"""Conformers of two parts: what makes the input of the layers, and the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.frontend.building import DEFAULT_DIM, as_dim
from returnn_lite.frontend.containers import Sequential
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.encoder.base import ISeqFramewiseEncoder
from returnn_lite.frontend.encoder.conformer import ConformerEncoderLayer
from returnn_lite.frontend.encoder.conformer_parts import WithInputLayer, made_layers
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.not_specified import NotSpecified


class ConformerFrontend(WithInputLayer):
    """`input_layer`, `input_projection` to `out_dim`, a factor, dropout."""

    def __init__(
        self,
        in_dim: Dim,
        out_dim: int | Dim = DEFAULT_DIM,
        *,
        input_layer: Any,
        input_embedding_scale: float = 1.0,
        input_dropout: float = 0.1,
    ) -> None:
        self._make_input(in_dim, as_dim(out_dim, "conformer-out-dim"), input_layer, input_dropout)
        self.input_embedding_scale = input_embedding_scale
        if self.input_layer is not None:
            self._make_projection(self.input_layer.out_dim)
        elif in_dim != self.out_dim:
            self._make_projection(in_dim)

    def __call__(self, source: Tensor, *, in_spatial_dim: Dim) -> tuple[Tensor, Dim]:
        """(tensor, its axis of time)."""
        x, time = self._input(source, in_spatial_dim)
        return self._drop_input(x), time


class ConformerEncoderV2(ISeqFramewiseEncoder):
    """The layers of a conformer."""

    def __init__(
        self,
        out_dim: int | Dim = DEFAULT_DIM,
        *,
        num_layers: int,
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
        self.out_dim = as_dim(out_dim, "conformer-out-dim")
        self.dropout, self.dropout_broadcast = dropout, dropout_broadcast_default()
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

    def __call__(self, x: Tensor, *, spatial_dim: Dim, collected_outputs: dict[str, Tensor] | None = None) -> Tensor:
        """Axes as of the layers; `collected_outputs` gets the result of each."""
        return self.layers(x, spatial_dim=spatial_dim, collected_outputs=collected_outputs)  # type: ignore[no-any-return]
