"""The global options that are a single bool or number: a value that is none, or out of range, is refused at the start.

Most options are checked by whoever reads them; these are read late (after an epoch, at an evaluation), or by their
truth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from returnn_lite.config.config import Config
from returnn_lite.config.option_types import Range, is_bool
from returnn_lite.config.values import parse_bool, wrong
from returnn_lite.errors import ConfigError, ConfigErrors

BOOLS = tuple(
    """
    allow_random_model_init apply_cleanup_old_models_to_optim_states calculate_exp_loss chunk_eval decouple_constraints
    dry_run forward_override_hdf_output forward_use_search learning_rate_control_relative_error_relative_lr
    load_ignore_missing_vars log_batch_size need_data network_fusion newbob_relative_error_div_by_old
    optimize_move_layers_out reinit_network_each_epoch reset_optimizer_on_restart save_epoch1_initial_model
    search_do_eval shuffle_batches sparse_input stop_on_nonfinite_train_score tf_native_ctc_zero_infinity
    use_last_best_model use_learning_rate_control_always
    """.split()
)
INTS = {
    "behavior_version": Range(0),
    "epoch": Range(0),
    "load_epoch": Range(0),
    "log_batch_interval": Range(0),
    "num_epochs": Range(0),
    "num_workers": Range(0),
    "random_seed": Range(-(2**63), 2**63 - 1),
    "reset_updater_vars_mod_step": Range(0),
    "save_interval": Range(0),
    "seq_drop_freq": Range(0),
}
FLOATS = {"chunking_variance": Range(0, 1), "inc_seq_length": Range(), "seq_drop": Range(0, 1)}


def check_values(config: Config) -> None:
    """Raises ConfigErrors for all of these options that are wrong."""
    errors: list[ConfigError] = []
    for key in BOOLS:
        _collect(errors, _check_bool, config, key)
    for key, limit in INTS.items():
        _collect(errors, _check_number, config, key, config.int, limit)
    for key, limit in FLOATS.items():
        _collect(errors, _check_number, config, key, config.float, limit)
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)


def _collect(errors: list[ConfigError], check: Callable[..., None], config: Config, key: str, *more: Any) -> None:
    if not config.has(key):
        return
    try:
        check(config, key, *more)
    except ConfigError as exc:
        errors.append(exc)


def _check_bool(config: Config, key: str) -> None:
    """A text that says no would count as yes, as any text does in Python."""
    value = config.opt_typed_value(key)
    if isinstance(value, str) and value:
        parsed = parse_bool(value)
        if parsed is None or (config.is_typed(key) and not parsed):
            raise wrong(key, "a bool (True or False)", value)
    elif not isinstance(value, (bool, int, str)) and not is_bool(value):
        raise wrong(key, "a bool (True or False)", value)


def _check_number(config: Config, key: str, read: Callable[[str, Any], Any], limit: Range) -> None:
    value = read(key, None)
    if value is not None and (value != value or value not in limit):
        raise wrong(key, limit.name("an int" if read == config.int else "a number"), value)
