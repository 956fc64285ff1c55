"""Transformer encoders (Vaswani et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from returnn_lite.frontend.building import (
    DEFAULT_DIM,
    as_dim,
    made,
    made_self_att,
    make_norm,
    positions_of,
    specified,
    stacked,
)
from returnn_lite.frontend.containers import Sequential
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.dropout import dropout as rf_dropout
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.encoder.base import ISeqFramewiseEncoder
from returnn_lite.frontend.feed_forward import FeedForward, made_ff
from returnn_lite.frontend.linear import Embedding, Linear
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.positions import sinusoidal_positional_encoding
from returnn_lite.frontend.self_attention import SelfAttention
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.not_specified import NotSpecified


class TransformerEncoder(ISeqFramewiseEncoder):
    """Embedding + positions, layers, norm. Options as of `TransformerDecoder`; `vocab_dim`: the axis of the input.

    input_embedding: a class or dict of an embedding, a module, or None for input of embed_dim (or model_dim) features.
    """

    def __init__(
        self,
        vocab_dim: Dim,
        model_dim: int | Dim = DEFAULT_DIM,
        *,
        num_layers: int,
        ff: Any = NotSpecified,
        pos_enc: Any = sinusoidal_positional_encoding,
        dropout: float = 0.1,
        num_heads: int = 8,
        att_dropout: float = 0.1,
        norm: Any = LayerNorm,
        layer: Any = None,
        layer_opts: Mapping[str, Any] | None = None,
        embed_dim: Dim | None = None,
        input_embedding: Any = Embedding,
        input_embedding_scale: float | None = None,
        input_dropout: float | None = None,
        sequential: Any = Sequential,
    ) -> None:
        model_dim = as_dim(model_dim, "model-dim")
        self.vocab_dim, self.model_dim, self.embed_dim, self.out_dim = vocab_dim, model_dim, embed_dim, model_dim
        inner = model_dim if embed_dim is None else embed_dim
        self.input_embedding: Any = None
        if input_embedding is not None:
            self.input_embedding = made(input_embedding, "input_embedding", vocab_dim, inner)
        self.input_embedding_proj: Any = None
        if embed_dim is not None:
            self.input_embedding_proj = Linear(embed_dim, model_dim, with_bias=False)
        self.pos_enc = positions_of(pos_enc, inner)
        if input_embedding_scale is None:
            scaled = self.input_embedding is not None
            input_embedding_scale = math.sqrt(model_dim.padded_size()) if scaled else 1.0
        self.input_embedding_scale = input_embedding_scale
        self.input_dropout = dropout if input_dropout is None else input_dropout
        options = {
            **specified(ff=ff),
            **{"out_dim": model_dim, "dropout": dropout, "num_heads": num_heads, "att_dropout": att_dropout},
            **{"norm": norm},
            **(layer_opts or {}),
        }
        template = made(TransformerEncoderLayer if layer is None else layer, "layer", **options)
        self.layers = stacked(sequential, template, num_layers)
        self.num_layers = num_layers
        self.final_layer_norm = make_norm(norm, model_dim)

    def __call__(
        self, source: Tensor, *, spatial_dim: Dim, collected_outputs: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Axes: those of the source (without its features), then `model_dim`."""
        x = source if self.input_embedding is None else self.input_embedding(source)
        if self.input_embedding_scale != 1:
            x = x * self.input_embedding_scale
        if self.pos_enc is not None:
            x = x + self.pos_enc(spatial_dim=spatial_dim)
        x = rf_dropout(x, self.input_dropout)
        if self.input_embedding_proj is not None:
            x = self.input_embedding_proj(x)
        x = self.layers(x, spatial_dim=spatial_dim, collected_outputs=collected_outputs)
        return self.final_layer_norm(x)  # type: ignore[no-any-return]


class TransformerEncoderLayer(ISeqFramewiseEncoder):
    """x + self-attention, then + feed-forward; each of a norm."""

    def __init__(
        self,
        out_dim: Dim = DEFAULT_DIM,
        *,
        ff: Any = NotSpecified,
        dropout: float = 0.1,
        num_heads: int = 8,
        self_att: Any = None,
        att_dropout: float = 0.1,
        norm: Any = LayerNorm,
    ) -> None:
        self.dropout, self.out_dim = dropout, out_dim
        self.dropout_broadcast = dropout_broadcast_default()
        self.ff = made_ff(
            FeedForward,
            out_dim=out_dim,
            ff=ff,
            ff_dim=NotSpecified,
            ff_activation=NotSpecified,
            dropout=dropout,
        )
        self.ff_layer_norm = make_norm(norm, out_dim)
        self.self_att = made_self_att(
            self_att, SelfAttention, out_dim=out_dim, num_heads=num_heads, att_dropout=att_dropout
        )
        self.self_att_layer_norm = make_norm(norm, out_dim)

    def __call__(self, x: Tensor, *, spatial_dim: Dim) -> Tensor:
        """Axes: those of the input without its features, then `out_dim`."""
        axis = self.dropout_broadcast and self.out_dim
        y = self.self_att(self.self_att_layer_norm(x), axis=spatial_dim)
        x = rf_dropout(y, self.dropout, axis=axis) + x
        return rf_dropout(self.ff(self.ff_layer_norm(x)), self.dropout, axis=axis) + x
