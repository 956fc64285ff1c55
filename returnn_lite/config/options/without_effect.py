"""Options that are accepted and do nothing, and those that are refused, since doing nothing would be wrong."""

# Accepted without any effect: of old configs, or read by configs themselves.
_IGNORED = """
    multiprocessing update_on_device truncation truncate EpochSplit tf_log_memory_usage tf_session_opts
    tf_run_options seq_train_parallel patch_atfork store_metadata_mod_step debug_add_check_numerics_ops
    debug_add_check_numerics_on_output combine_labels gate_factors lreg cache order hidden_sizes dropout use_horovod
    horovod_reduce_type horovod_param_sync_time_diff horovod_scale_lr horovod_dataset_distribution use_lovely_tensors
    cache_size debug_mode debug_grad_summaries debug_print_layer_output debug_print_layer_output_template
    debug_save_updater_vars decouple_constraints_factor flat_net_construction keep_epochs load_optimizer_state
    optimizer_use_locking search_flag sprint_interface_dataset_opts
    sprint_trainer_exec_path use_pytorch use_tensorflow hidden_size hidden_type activation loss
    description beam_size watch_memory use_train_proc_manager reset_dev_memory_caches debug_shell_before_train_loop
    stop_for_resubmission_when_low_time_left grad_clip
"""
_NO_TRAIN_FLAG = "evaluations always run without the train flag"
_NO_ANALYSIS = "it belongs to the task analyze_data, which is not supported; use tools/dump-dataset.py --stats"
# Options that would change what is computed, and that do nothing here: why, and what to use instead.
REFUSED_KEYS = {
    "analyze_dataset": _NO_ANALYSIS,
    "eval_use_train_flag": _NO_TRAIN_FLAG,
    "init_new_network_callback": "callbacks are not supported; use `custom_param_importer` or `get_network`",
    "max_total_num_seqs": "use a dataset with fewer sequences, or its option `partition_epoch`",
    "search_train_network_layers": 'the task "search" computes scores of a search, not the training',
    "statistics_save_prefix": _NO_ANALYSIS,
    "train_in_eval": _NO_TRAIN_FLAG,
    "use_dummy_datasets": "use a DummyDataset as `train` and `dev`",
}

IGNORED_KEYS = frozenset(_IGNORED.split())
