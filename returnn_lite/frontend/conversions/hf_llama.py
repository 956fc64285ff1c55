"""Parameters of Llama models, as Hugging Face's transformers have them."""

from __future__ import annotations

import torch

from returnn_lite.frontend.conversions.torch_nn import copied
from returnn_lite.frontend.decoder.transformer import TransformerDecoder, TransformerDecoderLayer
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.self_attention import SelfAttentionBase
from returnn_lite.frontend.types import ForeignModule


def import_params_hf_llama_to_rf_transformer_decoder(
    model_hf: ForeignModule, rf_model: TransformerDecoder
) -> TransformerDecoder:
    """`LlamaForCausalLM`: embedding, layers, norm and logits; returns the decoder."""
    inner = model_hf.model
    if len(inner.layers) != len(rf_model.layers):
        raise WrongUse(f"the decoder must have {len(inner.layers)} layers, but has {len(rf_model.layers)}")
    copied(inner.embed_tokens.weight, rf_model.input_embedding.weight, "input_embedding.weight")
    if rf_model.logits.weight is not rf_model.input_embedding.weight:
        copied(model_hf.lm_head.weight.t(), rf_model.logits.weight, "logits.weight")
    copied(inner.norm.weight, rf_model.final_layer_norm.scale, "final_layer_norm.scale")
    for hf_layer, layer in zip(inner.layers, rf_model.layers, strict=True):
        import_params_hf_llama_layer_to_rf_transformer_decoder_layer(hf_layer, layer)
    return rf_model


def import_params_hf_llama_layer_to_rf_transformer_decoder_layer(
    layer_hf: ForeignModule, rf_layer: TransformerDecoderLayer
) -> None:
    """One layer."""
    mlp = layer_hf.mlp
    copied(
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).t(), rf_layer.ff.linear_ff.weight, "ff.linear_ff.weight"
    )
    copied(mlp.down_proj.weight.t(), rf_layer.ff.linear_out.weight, "ff.linear_out.weight")
    copied(layer_hf.input_layernorm.weight, rf_layer.self_att_layer_norm.scale, "self_att_layer_norm.scale")
    copied(layer_hf.post_attention_layernorm.weight, rf_layer.ff_layer_norm.scale, "ff_layer_norm.scale")
    import_params_hf_llama_att_to_rf_rotary_att(layer_hf.self_attn, rf_layer.self_att)


def import_params_hf_llama_att_to_rf_rotary_att(att_hf: ForeignModule, rf_att: SelfAttentionBase) -> None:
    """Self-attention: query, key and value per head in one matrix, the halves of a rotation as pairs of neighbours."""
    heads, size = rf_att.num_heads.padded_size(), rf_att.key_dim_per_head.padded_size()
    parts = []
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(att_hf, name).weight
        part = weight.reshape(weight.shape[0] // size, size, -1)  # (heads, size, in)
        if name != "v_proj":
            part = part.unflatten(1, (2, size // 2)).transpose(1, 2).flatten(1, 2)
        parts.append(part.repeat_interleave(heads // part.shape[0], 0))  # one key for several queries
    copied(torch.cat(parts, 1).flatten(0, 1).t(), rf_att.qkv.weight, "qkv.weight")
    copied(att_hf.o_proj.weight.t(), rf_att.proj.weight, "proj.weight")
