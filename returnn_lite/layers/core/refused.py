"""Layer classes of old or rare configs that do not exist here: why, and what to use instead."""

from __future__ import annotations

_OLD = "it exists only in old versions of the config language"
_RARE = "it is too rare to be supported"
_OWN = "it is a class that configs define themselves"
_BROKEN = "it never worked in recent versions of the config language"
_TOOLKIT = "it needs external software"

REFUSED: dict[str, tuple[str, str]] = {  # word -> (reason, what to use instead)
    "addonehot": (_OLD, "an `eval` layer with tf.one_hot, and `copy` to concatenate"),
    "associative_lstm": (_OLD, "`rec` with a `unit` of this list: nativelstm2, lstmp, layernormlstm"),
    "batch_softmax": (_BROKEN, "`merge_dims` and `activation` with softmax"),
    "complex_linear_projection": (_RARE, "`complex_to_alternating_real` and `linear`"),
    "crf": (_OLD, "the loss `ctc`, or `fast_bw` with the loss `via_layer`"),
    "downsample": (_OLD, '`pool` with `mode` "avg" or "max"'),
    "fast_bw_factored": (_OLD, "`fast_bw`"),
    "first_t_frames_noise_estimator": (_RARE, '`slice` and `reduce` with `mode` "mean"'),
    "flatten_time": (_BROKEN, "`flatten_batch`"),
    "gauss_weighting": (_OWN, "`gauss_window_attention`"),
    "get_beamed_layer": (_OLD, "`choice_get_src_beams`"),
    "hmm_factorization": (_OLD, "`combine`, `reduce` and `dot`"),
    "kenlm": (_TOOLKIT, "a language model as a layer"),
    "neural_transducer": (_OLD, "`rec` with a dict `unit` and `masked_computation`"),
    "reverse_sequence": (_OLD, "`rec` with `direction` -1"),
    "sampled_logits": (_OWN, "`linear` with the loss `sampling_loss`"),
    "sampling": (_OLD, "`random` and `eval`"),
    "segment_input": (_RARE, "`window` or `time_chunking`"),
    "self_attention_share_kv": (_OWN, "`self_attention` with `reuse_params`"),
    "signal_masking": (_RARE, '`combine` with `kind` "mul"'),
    "sprint": (_TOOLKIT, '`fast_bw` with `align_target` "ctc"'),
    "swap_time_feature": (_BROKEN, '`swap_axes`, or `reinterpret_data` with `switch_axes` "tf"'),
    "tikhonov_regularization": (_RARE, "the option `L2`"),
    "unsegment_input": (_RARE, "`fold` or `time_unchunking`"),
    "upsample": (_OLD, "`resize`, `repeat` or `transposed_conv`"),
}


def refusal(name: str) -> str:
    """The sentence for a class that is not supported; "" for a word that is not in the table."""
    if name not in REFUSED:
        return ""
    reason, instead = REFUSED[name]
    return f"layer class {name!r} is not supported, since {reason}; use {instead}"
