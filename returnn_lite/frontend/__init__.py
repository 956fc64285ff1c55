"""`returnn.frontend`, the language of models written with named axes: `import returnn.frontend as rf`.

One family of functions a file. `dim.py`, `tensor.py`: axes with sizes, tensors with axes. Functions: `elementwise`,
`binary`, `reduce`, `matmul`, `where`, `axes`, `concat`, `gather`, `scatter`, `masked`, `frames`, `along_axis`,
`random`, `gradient`, `loops`, `nested`. Modules: `module`, `parameter`, `init`, `containers`, `parametrizations`.
Layers: `linear`, `conv`, `pool`, `normalization`, `batch_norm`, `lstm`, `attention` (and the files it names),
`positions`; losses: `losses`, `ctc`, `ctc_paths`; `audio`; whole models: `encoder`, `decoder`; `conversions`. What a
run hands to a config: `run_ctx`, `tensor_dict`, `callback`.
"""

from __future__ import annotations

from typing import Any

from returnn_lite.behavior_version import BehaviorVersion, select_backend_torch
from returnn_lite.errors import UnknownName, did_you_mean, user_line
from returnn_lite.frontend import audio, hooks, init, nested
from returnn_lite.frontend.along_axis import cumsum, gating, log_softmax, moments, softmax
from returnn_lite.frontend.attention import (
    CausalSelfAttention,
    CausalSelfAttentionState,
    CrossAttention,
    LearnedRelativePositionalEncoding,
    RelPosCausalSelfAttention,
    RelPosSelfAttention,
    RotaryPosCausalSelfAttention,
    RotaryPosSelfAttention,
    SelfAttention,
    SelfAttentionBase,
    dot_attention,
    relative_positional_encoding,
    sinusoidal_encoding,
    sinusoidal_positional_encoding,
)
from returnn_lite.frontend.axes import (
    complex_as_real,
    expand_dim,
    expand_dims,
    expand_make_non_empty,
    make_complex,
    merge_dims,
    real_as_complex,
    replace_dim,
    replace_dim_v2,
    reshape,
    set_sparse_dim,
    split_dims,
    squeeze,
)
from returnn_lite.frontend.batch_norm import BatchNorm
from returnn_lite.frontend.binary import (
    add,
    ceil_divide,
    combine,
    combine_bc,
    compare,
    compare_bc,
    equal,
    floor_divide,
    greater,
    greater_equal,
    less,
    less_equal,
    log_add_exp,
    logical_and,
    logical_or,
    maximum,
    minimum,
    mod,
    mul,
    not_equal,
    opt_logical_and,
    opt_logical_or,
    pow,
    squared_difference,
    sub,
    true_divide,
)
from returnn_lite.frontend.build_from_dict import build_dict, build_from_dict
from returnn_lite.frontend.callback import ForwardCallback
from returnn_lite.frontend.concat import concat, concat_features, cum_concat_step, pad, split, stack, unstack
from returnn_lite.frontend.const import (
    constant,
    convert_to_tensor,
    fill,
    full,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from returnn_lite.frontend.containers import Functional, ModuleList, ParameterList, Sequential, sequential
from returnn_lite.frontend.conv import Conv1d, Conv2d, Conv3d, conv
from returnn_lite.frontend.conv_sizes import (
    calc_conv_out_length,
    calc_transposed_conv_out_length,
    make_conv_out_spatial_dims,
    make_transposed_conv_out_spatial_dims,
)
from returnn_lite.frontend.ctc import ctc_best_path, ctc_loss
from returnn_lite.frontend.ctc_paths import (
    ctc_durations_from_path,
    ctc_greedy_decode,
    ctc_no_label_loop_blank_durations_from_path,
)
from returnn_lite.frontend.dim import Dim, batch_dim, single_step_dim
from returnn_lite.frontend.dropout import dropout, dropout_broadcast_default
from returnn_lite.frontend.dtypes import (
    get_default_array_index_dtype,
    get_default_device,
    get_default_dim_size_device,
    get_default_float_dtype,
    get_default_int_dtype,
    is_float_dtype,
    set_default_device,
    set_default_device_ctx,
    set_default_float_dtype,
    set_default_float_dtype_ctx,
)
from returnn_lite.frontend.edit import edit_distance
from returnn_lite.frontend.elementwise import (
    abs,
    cast,
    ceil,
    copy,
    copy_to_device,
    cos,
    elu,
    exp,
    expm1,
    floor,
    gelu,
    identity,
    is_finite,
    is_infinite,
    is_neg_infinite,
    log,
    log1p,
    log_sigmoid,
    logical_not,
    neg,
    reciprocal,
    relu,
    relu_square,
    round,
    rsqrt,
    safe_log,
    selu,
    sigmoid,
    silu,
    sin,
    sqrt,
    square,
    swish,
    tanh,
)
from returnn_lite.frontend.frames import repeat, reverse_sequence, shift_left, shift_right, slice, window
from returnn_lite.frontend.gather import gather, one_hot, search_sorted, sort, sparse_to_dense, top_k_mask, top_p_mask
from returnn_lite.frontend.gradient import (
    gradient,
    gradient_checkpoint_scope,
    scaled_gradient,
    scaled_gradient_ext,
    set_requires_gradient,
    stop_gradient,
    stop_gradient_scope,
)
from returnn_lite.frontend.linear import Embedding, Linear
from returnn_lite.frontend.loops import assert_, cond, control_flow_ctx, scan, while_loop
from returnn_lite.frontend.loss import Loss
from returnn_lite.frontend.losses import (
    cross_entropy,
    label_smoothed_log_prob_gradient,
    label_smoothing,
    smooth_one_hot,
)
from returnn_lite.frontend.lstm import LSTM, ZoneoutLSTM
from returnn_lite.frontend.masked import masked_scatter, masked_select, pack_padded, pad_packed
from returnn_lite.frontend.matmul import dot, matmul
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.normalization import GroupNorm, GroupNormSpatial, LayerNorm, Normalize, RMSNorm, normalize
from returnn_lite.frontend.parameter import Parameter, set_parameter_copy_behavior_ctx
from returnn_lite.frontend.parametrizations import (
    WeightDropout,
    WeightNoise,
    is_parametrized,
    register_parametrization,
    remove_parametrization,
    weight_dropout,
    weight_noise,
)
from returnn_lite.frontend.piecewise import PiecewiseLinear, PiecewiseLinearStepwiseScheduler
from returnn_lite.frontend.pool import max_pool, max_pool1d, max_pool2d, max_pool3d, pool, pool1d, pool2d, pool3d
from returnn_lite.frontend.random import (
    get_random_state,
    random,
    random_choice_with_replacement,
    random_choice_without_replacement,
    random_normal,
    random_truncated_normal,
    random_uniform,
    set_random_seed,
    set_random_state,
)
from returnn_lite.frontend.reduce import (
    reduce,
    reduce_all,
    reduce_any,
    reduce_argmax,
    reduce_argmin,
    reduce_logmeanexp,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_out,
    reduce_sum,
    top_k,
)
from returnn_lite.frontend.run_ctx import (
    RunContext,
    RunCtx,
    get_run_ctx,
    get_run_ctx_step,
    init_forward_step_run_ctx,
    init_train_step_run_ctx,
)
from returnn_lite.frontend.running_mean import RunningMean
from returnn_lite.frontend.scatter import (
    scatter,
    scatter_argmax,
    scatter_count,
    scatter_logmeanexp,
    scatter_logsumexp,
)
from returnn_lite.frontend.sizes import (
    dim_match_priority_when_needed,
    last_frame_position_of_dim,
    linspace_over_dim,
    masked_fraction_of_shape,
    num_elements_of_shape,
    range_over_dim,
    range_over_dim_strided,
    range_over_merged_dims,
    sequence_mask,
    use_mask_default,
)
from returnn_lite.frontend.state import LstmState, State
from returnn_lite.frontend.stft import stft
from returnn_lite.frontend.tensor import RawTensorTypes, Tensor
from returnn_lite.frontend.tensor_array import TensorArray
from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.frontend.transposed_conv import (
    TransposedConv1d,
    TransposedConv2d,
    TransposedConv3d,
    transposed_conv,
)
from returnn_lite.frontend.where import clip_by_value, lerp, where


def is_executing_eagerly() -> bool:
    """True: what is written is computed at once."""
    return True


def __getattr__(name: str) -> Any:
    if name.startswith("__") or name in _LOADED_BY_IMPORT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    own = ("audio", "hooks", "init", "nested")
    known = [key for key, value in globals().items() if not key.startswith("_") and (callable(value) or key in own)]
    reason = NOT_HERE.get(name)
    hint = f"; {reason}" if reason else did_you_mean(name, known)
    raise UnknownName(user_line(), f"rf.{name} does not exist{hint}")


_LOADED_BY_IMPORT = ("encoder", "decoder", "conversions", "checkpoint")
_LAYERS = "it belongs to the TensorFlow backend, which is not supported"
NOT_HERE = {
    "select_backend_returnn_layers_tf": _LAYERS,
    "select_backend_tf": _LAYERS,
    "get_extern_data": "the data is the argument `extern_data` of `train_step` and `forward_step`",
    "inner_loop": "use rf.scan or rf.while_loop",
    "flip": "use rf.reverse_sequence",
    "pack": "packed tensors are not supported; use rf.pack_padded",
    "unpack": "packed tensors are not supported; use rf.pad_packed",
    "is_packed": "packed tensors are not supported",
}
