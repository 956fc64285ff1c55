"""Transformer decoders (Vaswani et al., 2017), also as language models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.errors import did_you_mean
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
from returnn_lite.frontend.causal_attention import CausalSelfAttention
from returnn_lite.frontend.const import zeros
from returnn_lite.frontend.containers import Sequential
from returnn_lite.frontend.dim import Dim, single_step_dim
from returnn_lite.frontend.dropout import dropout as rf_dropout
from returnn_lite.frontend.dropout import dropout_broadcast_default
from returnn_lite.frontend.errors import WrongUse, kind
from returnn_lite.frontend.feed_forward import FeedForward, FeedForwardGated, made_ff
from returnn_lite.frontend.gather import gather
from returnn_lite.frontend.linear import Embedding, Linear
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import LayerNorm
from returnn_lite.frontend.positions import sinusoidal_positional_encoding
from returnn_lite.frontend.self_attention import CrossAttention
from returnn_lite.frontend.sizes import last_frame_position_of_dim
from returnn_lite.frontend.state import State
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.not_specified import NotSpecified

__all__ = ["FeedForward", "FeedForwardGated", "TransformerDecoder", "TransformerDecoderLayer", "make_norm"]


class TransformerDecoder(Module):
    """Embedding + positions, layers, norm, logits. With `encoder_dim` None a language model.

    model_dim: features inside. layer, layer_opts: what the layers are, and options of theirs. share_embedding: whether
    the logits have the matrix of the embedding; from version 20 on. input_embedding_scale: by default sqrt(model_dim)
    from version 20 on. embed_dim: features of the embedding, which are projected to model_dim.
    """

    def __init__(
        self,
        encoder_dim: Dim | None,
        vocab_dim: Dim,
        model_dim: int | Dim = DEFAULT_DIM,
        *,
        num_layers: int,
        ff: Any = NotSpecified,
        ff_dim: Any = NotSpecified,
        ff_activation: Any = NotSpecified,
        pos_enc: Any = sinusoidal_positional_encoding,
        dropout: float = 0.1,
        num_heads: int = 8,
        att_dropout: float = 0.1,
        norm: Any = LayerNorm,
        layer: Any = None,
        layer_opts: Mapping[str, Any] | None = None,
        embed_dim: Dim | None = None,
        share_embedding: bool | None = None,
        input_embedding: bool = True,
        input_embedding_scale: float | None = None,
        input_dropout: float | None = None,
        logits_with_bias: bool = False,
        sequential: Any = Sequential,
        **older: Any,
    ) -> None:
        layer, layer_opts = _older_names(older, layer, layer_opts)
        model_dim = as_dim(model_dim, "model-dim")
        self.encoder_dim, self.vocab_dim, self.model_dim, self.embed_dim = encoder_dim, vocab_dim, model_dim, embed_dim
        inner = model_dim if embed_dim is None else embed_dim
        self.input_embedding: Any = Embedding(vocab_dim, inner) if input_embedding else None
        self.input_embedding_proj: Any = None
        if embed_dim is not None:
            self.input_embedding_proj = Linear(embed_dim, model_dim, with_bias=False)
        self.pos_enc = positions_of(pos_enc, inner)
        self._set_input_defaults(input_embedding_scale, input_dropout, dropout)
        options = {
            **specified(ff=ff, ff_dim=ff_dim, ff_activation=ff_activation),
            **{"encoder_dim": encoder_dim, "out_dim": model_dim, "dropout": dropout, "num_heads": num_heads},
            **{"att_dropout": att_dropout, "norm": norm},
            **(layer_opts or {}),
        }
        template = made(TransformerDecoderLayer if layer is None else layer, "layer", **options)
        self.layers = stacked(sequential, template, num_layers)
        self.num_layers = num_layers
        self.final_layer_norm = make_norm(norm, model_dim)
        self.logits = Linear(model_dim, vocab_dim, with_bias=logits_with_bias)
        self._share(share_embedding, logits_with_bias)

    def _set_input_defaults(self, scale: float | None, input_dropout: float | None, dropout: float) -> None:
        scaled = BehaviorVersion.get() >= 20 if self.input_embedding is not None else self.pos_enc is not None
        if scale is None:
            scale = math.sqrt(self.model_dim.padded_size()) if scaled else 1.0
        self.input_embedding_scale = scale
        if input_dropout is None:
            input_dropout = dropout if BehaviorVersion.get() >= 20 else 0.0
        self.input_dropout = input_dropout

    def _share(self, share: bool | None, with_bias: bool) -> None:
        """Makes the matrix of the embedding that of the logits."""
        fits = self.input_embedding is not None and self.input_embedding.out_dim == self.model_dim and not with_bias
        if share and not fits:
            raise WrongUse("share_embedding needs an embedding of model_dim features, and logits without a bias")
        if share or (share is None and fits and BehaviorVersion.get() >= 20):
            self.logits.weight = self.input_embedding.weight

    def default_initial_state(self, *, batch_dims: Sequence[Dim]) -> State:
        """Of each layer, by name; "pos": the position, 0."""
        state = State({name: layer.default_initial_state(batch_dims=batch_dims) for name, layer in self.layers.items()})
        state.pos = zeros((), dtype="int32", device="cpu")
        return state

    def transform_encoder(self, encoder: Tensor, *, axis: Dim) -> State:
        """What calls need of the encoder, for each layer."""
        return State({name: layer.transform_encoder(encoder, axis=axis) for name, layer in self.layers.items()})

    def __call__(
        self,
        source: Tensor,
        *,
        spatial_dim: Dim,
        state: State,
        encoder: State | None = None,
        collected_outputs: dict[str, Tensor] | None = None,
        output_only_last_frame: bool = False,
    ) -> tuple[Tensor, State]:
        """(logits, new state). `spatial_dim`: the axis, or `single_step_dim` for one frame.

        encoder: what `transform_encoder` gave. collected_outputs: gets the result of each layer.
        output_only_last_frame: the logits of the last valid frame alone.
        """
        if not isinstance(state, Mapping):
            text = f"a state, at first that of `default_initial_state`, but got {kind(state)}"
            raise WrongUse(f"{type(self).__name__} needs {text}")
        x = source if self.input_embedding is None else self.input_embedding(source)
        x = x * self.input_embedding_scale
        if self.pos_enc is not None:
            x = x + self.pos_enc(spatial_dim=spatial_dim, offset=_first_position(state.pos))
        x = rf_dropout(x, self.input_dropout)
        if self.input_embedding_proj is not None:
            x = self.input_embedding_proj(x)
        new = State()
        for name, layer in self.layers.items():
            own = None if encoder is None else encoder[name]
            x, new[name] = layer(x, spatial_dim=spatial_dim, state=state[name], encoder=own)
            if collected_outputs is not None:
                collected_outputs[name] = x
        new.pos = state.pos + (1 if spatial_dim == single_step_dim else spatial_dim.get_size_tensor())
        if output_only_last_frame and spatial_dim != single_step_dim:
            x = gather(x, indices=last_frame_position_of_dim(spatial_dim, device=x.device), axis=spatial_dim)
        return self.logits(self.final_layer_norm(x)), new


def _first_position(pos: Tensor) -> int | Tensor:
    """The position as a number if it is one for all; it is on the CPU."""
    raw = pos.raw_tensor
    return int(raw) if raw.dim() == 0 and raw.device.type == "cpu" else pos


def _older_names(older: dict[str, Any], layer: Any, opts: Any) -> tuple[Any, Any]:
    """The options by their older names."""
    layer = older.pop("decoder_layer", layer)
    opts = older.pop("decoder_layer_opts", opts)
    if older:
        known = TransformerDecoder.__init__.__kwdefaults__ or {}
        name = next(iter(older))
        raise WrongUse(f"a TransformerDecoder has no option {name!r}{did_you_mean(name, known)}")
    return layer, opts


class TransformerDecoderLayer(Module):
    """x + self-attention, then + attention to the encoder (with `encoder_dim`), then + feed-forward; each of a norm."""

    def __init__(
        self,
        encoder_dim: Dim | None,
        out_dim: Dim = DEFAULT_DIM,
        *,
        ff: Any = NotSpecified,
        ff_dim: Any = NotSpecified,
        ff_activation: Any = NotSpecified,
        dropout: float = 0.1,
        num_heads: int = 8,
        self_att: Any = None,
        self_att_opts: Mapping[str, Any] | None = None,
        att_dropout: float = 0.1,
        cross_att: Any = None,
        norm: Any = LayerNorm,
    ) -> None:
        self.encoder_dim, self.dropout, self.out_dim = encoder_dim, dropout, out_dim
        self.dropout_broadcast = dropout_broadcast_default()
        self.ff = made_ff(
            FeedForward, out_dim=out_dim, ff=ff, ff_dim=ff_dim, ff_activation=ff_activation, dropout=dropout
        )
        self.ff_layer_norm = make_norm(norm, out_dim)
        self.self_att = made_self_att(
            self_att,
            CausalSelfAttention,
            out_dim=out_dim,
            num_heads=num_heads,
            att_dropout=att_dropout,
            options=self_att_opts,
        )
        self.self_att_layer_norm = make_norm(norm, out_dim)
        self.cross_att: Any = None
        self.cross_att_layer_norm: Any = None
        if encoder_dim is not None:
            self.cross_att = made(
                CrossAttention if cross_att is None else cross_att,
                "cross_att",
                encoder_dim=encoder_dim,
                query_in_dim=out_dim,
                proj_dim=out_dim,
                key_dim_total=out_dim,
                value_dim_total=out_dim,
                num_heads=num_heads,
                att_dropout=att_dropout,
            )
            self.cross_att_layer_norm = make_norm(norm, out_dim)

    def default_initial_state(self, *, batch_dims: Sequence[Dim]) -> State:
        """That of the self-attention."""
        return State(self_att=self.self_att.default_initial_state(batch_dims=batch_dims))

    def transform_encoder(self, encoder: Tensor, *, axis: Dim) -> State:
        """What calls need of the encoder."""
        if self.cross_att is None:
            raise WrongUse(f"{self} has no attention to an encoder, as `encoder_dim` is None")
        return State(cross_att=self.cross_att.transform_encoder(encoder, axis=axis))

    def _drop(self, x: Tensor) -> Tensor:
        return rf_dropout(x, self.dropout, axis=self.dropout_broadcast and self.out_dim)

    def __call__(
        self, x: Tensor, *, spatial_dim: Dim, state: State, encoder: State | None = None
    ) -> tuple[Tensor, State]:
        """(tensor, new state)."""
        new = State()
        y, new.self_att = self.self_att(self.self_att_layer_norm(x), axis=spatial_dim, state=state.self_att)
        x = self._drop(y) + x
        if self.cross_att is not None:
            if encoder is None:
                raise WrongUse(f"{self} needs the `encoder`, of `transform_encoder`")
            y = self.cross_att(self.cross_att_layer_norm(x), encoder.cross_att)
            x = self._drop(y) + x
        return self._drop(self.ff(self.ff_layer_norm(x))) + x, new
