"""The names of all global options, and a look for misspelt ones.

A config may define any number of helper names of its own, so an unknown name in a file is never an error; but one that
is nearly the name of an option, and that nobody has read, is worth a line in the log. A name that the command line
gives (`++name value`) must be known, or stand in the config.
"""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

from returnn_lite.config.config import Config
from returnn_lite.config.config_code import is_library
from returnn_lite.config.syntax import read_config
from returnn_lite.errors import ConfigError, ConfigErrors, closest, did_you_mean

if TYPE_CHECKING:
    from returnn_lite.log import Log

_RUN = """
    task backend device log log_verbosity log_format behavior_version startup_callback need_data random_seed dry_run
    include tensorboard_opts tf_log_dir torch_amp torch_distributed checkpoint_format float32_matmul_precision
    torch_compile torch_cuda_graph
"""
_MODEL = """
    network get_network extern_data num_inputs num_outputs target default_input sparse_input inf_value
    tf_native_ctc_zero_infinity optimize_move_layers_out network_fusion pretrain pretrain_copy_output_layer
    pretrain_repetitions pretrain_construction_algo pretrain_greedy pretrain_learning_rate param_dropout
    param_dropout_min_ndim param_variational_noise reinit_network_each_epoch
"""
_FILES = """
    model load load_epoch epoch import_model_train_epoch1 preload_from_files load_ignore_missing_vars
    allow_random_model_init save_interval save_epoch1_initial_model cleanup_old_models
    apply_cleanup_old_models_to_optim_states reset_optimizer_on_restart load_averaged output_file eval_output_file
    eval_output_file_per_seq
"""
_TRAINING = """
    num_epochs start_epoch start_batch batch_size max_seqs max_seq_length min_seq_length max_pad_size inc_seq_length
    seq_drop seq_drop_freq packed_batch_size shuffle_batches stop_on_nonfinite_train_score calculate_exp_loss
    log_batch_size train_step forward_step get_model model_outputs grad_scaler on_size_limit use_last_best_model
    log_batch_interval rf_dropout_broadcast rf_scatter_use_fixed_masking rf_att_dropout_broadcast rf_use_mask
    rf_use_mask_conv rf_use_mask_transposed_conv rf_use_mask_pool rf_use_mask_stft rf_use_mask_window
    rf_use_mask_scatter rf_use_mask_BatchNorm rf_use_consistent_same_padding rf_conformer_conv_norm_use_mask
    rf_specaugment_num_masks_per_seq rf_module_output_keep_dtype epoch_start epoch_end load_model_post_hooks
    batch_size_train batch_size_dev torch_batching online_shuffle_batches allow_skipping_seqs_in_forward
"""
_OPTIMIZER = """
    optimizer optimizer_epsilon adam nadam adadelta adagrad rmsprop momentum gradient_noise gradient_clip
    gradient_clip_norm gradient_clip_avg_norm gradient_clip_global_norm gradient_clip_global_norm_tag
    global_norm_tag gradient_nan_inf_filter grad_norm_to_clip_to_zero maximize_grad_norm accum_grad_multiple_step
    decouple_constraints reset_updater_vars_mod_step extra_updates num_allowed_consec_invalid_gradient_steps
    weight_decay_modules_blacklist weight_decay_custom_include_check param_groups_custom weight_averaging
    log_grad_norm
"""
_LEARNING_RATE = """
    learning_rate learning_rates min_learning_rate learning_rate_control learning_rate_file
    learning_rate_control_error_measure learning_rate_control_min_num_epochs_per_new_lr
    learning_rate_control_relative_error_relative_lr learning_rate_decay learning_rate_growth
    newbob_learning_rate_decay newbob_learning_rate_growth newbob_relative_error_div_by_old
    newbob_relative_error_threshold newbob_error_threshold newbob_multi_num_epochs newbob_multi_update_interval
    newbob_relative_error_grow_threshold use_learning_rate_control_always dynamic_learning_rate lr_scheduler
    lr_agent lr_agent_eval learning_rate_agent
"""
_DATA = """
    train dev eval eval_datasets window context_window chunking batching shuffle_frames_of_nseqs min_chunk_size
    chunking_variance chunk_eval num_workers
"""
_OTHER_TASKS = """
    forward_output_layer forward_batch_size forward_override_hdf_output forward_use_search forward_callback sort_dataset
    forward_data search_data search_do_eval search_output_layer search_output_file search_output_file_format
"""
# Accepted without any effect: of old configs, or read by configs themselves.
_IGNORED = """
    multiprocessing update_on_device truncation truncate EpochSplit tf_log_memory_usage tf_session_opts
    tf_run_options seq_train_parallel patch_atfork store_metadata_mod_step debug_add_check_numerics_ops
    debug_add_check_numerics_on_output combine_labels gate_factors lreg cache order hidden_sizes dropout use_horovod
    horovod_reduce_type horovod_param_sync_time_diff horovod_scale_lr horovod_dataset_distribution use_lovely_tensors
    cache_size debug_mode debug_grad_summaries debug_print_layer_output debug_print_layer_output_template
    debug_save_updater_vars decouple_constraints_factor flat_net_construction keep_epochs load_optimizer_state
    optimizer_use_locking search_flag sprint_interface_dataset_opts
    sprint_trainer_exec_path torch_dataloader_opts use_pytorch use_tensorflow hidden_size hidden_type activation loss
    description beam_size
"""
_NO_TRAIN_FLAG = "evaluations always run without the train flag"
_NO_ANALYSIS = "it belongs to the task analyze_data, which is not supported; use tools/dump-dataset.py --stats"
# Options that would change what is computed, and that do nothing here: why, and what to use instead.
REFUSED_KEYS = {
    "analyze_dataset": _NO_ANALYSIS,
    "default_float_dtype": "parameters are float32; `torch_amp` computes in less",
    "eval_use_train_flag": _NO_TRAIN_FLAG,
    "init_new_network_callback": "a network is built without callbacks; use `custom_param_importer` or `get_network`",
    "max_total_num_seqs": "use a dataset with fewer sequences, or its option `partition_epoch`",
    "search_train_network_layers": 'scores of a search come from the task "search", not from the training',
    "statistics_save_prefix": _NO_ANALYSIS,
    "train_in_eval": _NO_TRAIN_FLAG,
    "use_dummy_datasets": "use a DummyDataset as `train` and `dev`",
}

IGNORED_KEYS = frozenset(_IGNORED.split())
KNOWN_KEYS = IGNORED_KEYS.union(
    REFUSED_KEYS,
    *(group.split() for group in (_RUN, _MODEL, _FILES, _TRAINING, _OPTIMIZER, _LEARNING_RATE, _DATA, _OTHER_TASKS)),
)

_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
# How alike (difflib ratio) a name must be to be taken for a misspelling: batchsize, learning_rte, optimiser are;
# data_files, num_layers, seq_order are helper names.
_ALIKE = 0.84


def refuse_keys(config: Config) -> None:
    """Raises ConfigError for an option that is set to something and would be without effect."""
    for key, reason in REFUSED_KEYS.items():
        value = config.opt_typed_value(key)
        if value and value not in ("float32", -1):
            raise ConfigError(key, f"this option is not supported: {reason}")


def refuse_unknown_overrides(config: Config, overrides: Sequence[tuple[str, str]]) -> None:
    """ConfigErrors for options of the command line that do not exist: which are unknown here, which no config file
    defines, and which the code of the config does not name."""
    unknown = [key for key, _ in overrides if key not in KNOWN_KEYS and key not in config.typed]
    unknown = [key for key in dict.fromkeys(unknown) if not config.was_read(key)]
    names = _names_in_code(config) if unknown else ""
    errors = [
        ConfigError(f"++{key}", f"there is no option {key!r}{_hint(key, config)}")
        for key in unknown
        if not re.search(rf"\b{re.escape(key)}\b", names)
    ]
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)


def _hint(key: str, config: Config) -> str:
    own = [name for name, value in config.typed.items() if not name.startswith("_") and not isinstance(value, _CODE)]
    found = did_you_mean(key, [*sorted(KNOWN_KEYS), *own])
    return found or "; an option of one's own must occur in the config file"


def _names_in_code(config: Config) -> str:
    """The text of the config files, and of the modules of the user's own that they import."""
    texts = [read_config(name).decode("utf-8", "replace") for name in config.files]
    new = {name: module for name, module in list(sys.modules.items()) if name not in config.modules_before}
    paths = {getattr(module, "__file__", None) for module in new.values()}
    for path in paths:
        if path and path.endswith(".py") and not is_library(path) and os.path.isfile(path):
            texts.append(read_config(path).decode("utf-8", "replace"))
    return "\n".join(texts)


def helper_names(config: Config) -> list[str]:
    """Values that nobody has read, under names that are no options; without code, and what starts with "_"."""
    return [
        key
        for key in config.unread_keys()
        if key not in KNOWN_KEYS and not key.startswith("_") and not isinstance(config.typed.get(key), _CODE)
    ]


def misspelt_keys(config: Config) -> dict[str, str]:
    """Option -> the known option that was probably meant: of values that nobody has read, and unless the known option
    is given as well (`learning_rate2` beside `learning_rate` is a helper name)."""
    found = {}
    for key in helper_names(config):
        if len(key) < 4:
            continue
        meant = closest(key, KNOWN_KEYS, _ALIKE)
        if meant is not None and meant not in config.typed and meant not in config.untyped:
            found[key] = meant
    return found


def warn_misspelt_keys(config: Config, log: Log) -> None:
    """Logs `misspelt_keys` at verbosity 1; to be called once, when the set-up has read all its options."""
    for key, meant in misspelt_keys(config).items():
        log.v1(f'WARNING: config option "{key}" is not known and was not read; did you mean "{meant}"?')
