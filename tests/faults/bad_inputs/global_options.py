"""Global options, those of optimizers, datasets, extern data, clean-up: values of every kind, in whole configs."""

from collections.abc import Iterator

from returnn_lite.config import KNOWN_KEYS
from tests.faults.bad_inputs.cases import VALUES, Case, config_case, literal

# Checked by tests of their own, or what they do is not to be done here.
NOT_HERE = {"include", "task", "log", "torch_distributed", "backend", "use_tensorflow", "load", "num_workers", "model"}
OPTIMIZER = "learning_rate epsilon momentum beta1 beta2 clip class decay learning_rate_multiplier use_locking".split()
DATASET = """
    seq_ordering partition_epoch chunking min_chunk_size window context_window shuffle_frames_of_nseqs
    fixed_random_seed random_seed_offset seq_list_filter_file unique_seq_tags output_dim data name class repeat_epoch
    estimated_num_seqs fixed_random_subset take_random_sorted_subset max_seq_len seq_order_seq_lens_file nothing_like_it
""".split()
EXTERN = (
    "dim shape sparse dtype batch_dim_axis time_dim_axis feature_dim_axis available_for_inference vocab dims".split()
)
CLEANUP = "keep_last_n keep_best_n keep nothing_like_it".split()
PRETRAIN = "copy_param_mode repetitions construction_algo greedy output_layers input_layers".split()
LOG = {"log": ["x", "./", "/dev/null/x", "\0/a"], "log_verbosity": VALUES, "log_format": VALUES}


def option_cases() -> Iterator[Case]:
    """Every global option."""
    for key in sorted(KNOWN_KEYS - NOT_HERE):
        for value in VALUES:
            yield config_case(f"{key} = {literal(value)}", f"{key} = {literal(value)}\n", must_fail=False)
    for key, values in LOG.items():
        for value in values:
            yield config_case(f"{key} = {literal(value)}", f"{key} = {literal(value)}\n", must_fail=False)
    for value in VALUES:
        if value not in ("", None):
            yield config_case(f"task = {literal(value)}", f"task = {literal(value)}\n", ("task",))


def nested_cases() -> Iterator[Case]:
    """Options within the dicts of others."""
    places = (
        ("optimizer", OPTIMIZER, "optimizer"),
        ("train", DATASET, "train"),
        ("extern_data['data']", EXTERN, "extern_data"),
        ("network['h']", ("class", "from", "n_out", "unit", "nothing_like_it"), "network"),
    )
    for place, options, _ in places:
        for option in options:
            for value in VALUES:
                line = f"{place}[{option!r}] = {literal(value)}\n"
                yield config_case(line.strip(), line, must_fail=False)
    for name, options in (("cleanup_old_models", CLEANUP), ("pretrain", PRETRAIN)):
        for option in options:
            for value in VALUES:
                line = f"{name} = {{{option!r}: {literal(value)}}}\n"
                yield config_case(line.strip(), line, must_fail=False)
