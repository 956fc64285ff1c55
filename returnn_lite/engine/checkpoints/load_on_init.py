"""`load_on_init` of sub-networks: initial values of their parameters from a model file."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.engine.checkpoints.load import Params
from returnn_lite.engine.checkpoints.preload import Preload, preload_entry
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

# What a dict may say; `load_if_prefix` is what `preload_from_files` calls `prefix`.
OPTIONS = (
    "filename", "params_prefix", "load_if_prefix", "ignore_missing", "ignore_params", "ignore_params_prefixes",
    "var_name_mapping",
)  # fmt: skip


def load_on_init(params: Params, layers: Iterable[torch.nn.Module], log: Log) -> frozenset[str]:
    """Sets the parameters of the layers (modules) that have `load_on_init`; returns the names of what was set.

    In the file they have the names which they have inside of the sub-network ("lm/lstm/rec/W" -> "lstm/rec/W").
    Raises ConfigError for wrong options, and as the loading of any model file does.
    """
    done: set[str] = set()
    for layer in layers:
        value = getattr(layer, "load_on_init", None)
        if value:
            path = f'{layer.path}["load_on_init"]'
            done |= _load(params, str(layer.param_prefix), value, path, log)
    return frozenset(done)


def _load(params: Params, scope: str, value: ConfigValue, path: str, log: Log) -> set[str]:
    options = {"filename": value} if isinstance(value, str) else value
    if not isinstance(options, dict) or "filename" not in options:
        text = f'`load_on_init` must be a model file or a dict with "filename", but is {value!r} instead'
        raise ConfigError(path, text)
    for option in options:
        if option not in OPTIONS:
            raise ConfigError(path, f'unknown option "{option}"{did_you_mean(option, OPTIONS)}')
    rest = {key: item for key, item in options.items() if key not in ("params_prefix", "load_if_prefix")}
    entry = Preload(prefix=options.get("load_if_prefix", ""), **rest)
    prefix = options.get("params_prefix", f"{scope}/" if scope else "")
    inside = f"{scope}/" if scope else ""
    own = {name for name in params if name.startswith(inside)}
    alien = sorted(name for name in own if not name.startswith(prefix))
    if alien:
        text = f"`params_prefix` must be a prefix of all names, but is {prefix!r} instead: {', '.join(alien)}"
        raise ConfigError(path, text)
    loaded = preload_entry({name[len(prefix) :]: params[name] for name in own}, path, entry, set(), log)
    return {prefix + name for name in loaded}
