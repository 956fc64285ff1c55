"""All kinds of attention: `dot_attention`, self-attention, causal, rotary, by relative positions, to an encoder."""

from __future__ import annotations

from returnn_lite.frontend.causal_attention import (
    CausalSelfAttention,
    CausalSelfAttentionState,
    RotaryPosCausalSelfAttention,
)
from returnn_lite.frontend.defaults import att_dropout_broadcast_default as _att_dropout_broadcast_default
from returnn_lite.frontend.dot_attention import dot_attention
from returnn_lite.frontend.positions import (
    LearnedRelativePositionalEncoding,
    relative_positional_encoding,
    sinusoidal_encoding,
    sinusoidal_positional_encoding,
)
from returnn_lite.frontend.relative_attention import RelPosCausalSelfAttention, RelPosSelfAttention, _rel_pos_enc_shift
from returnn_lite.frontend.self_attention import (
    CrossAttention,
    RotaryPosSelfAttention,
    SelfAttention,
    SelfAttentionBase,
    _apply_rope,
    _apply_rope_real,
)

__all__ = [
    "CausalSelfAttention",
    "CausalSelfAttentionState",
    "RotaryPosCausalSelfAttention",
    "_att_dropout_broadcast_default",
    "dot_attention",
    "LearnedRelativePositionalEncoding",
    "relative_positional_encoding",
    "sinusoidal_encoding",
    "sinusoidal_positional_encoding",
    "RelPosCausalSelfAttention",
    "RelPosSelfAttention",
    "_rel_pos_enc_shift",
    "CrossAttention",
    "RotaryPosSelfAttention",
    "SelfAttention",
    "SelfAttentionBase",
    "_apply_rope",
    "_apply_rope_real",
]
