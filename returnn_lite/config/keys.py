"""Names in configs: options that do not exist, and misspelt ones.

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
from returnn_lite.config.options import KNOWN_KEYS, OPTIONS, REFUSED_KEYS
from returnn_lite.config.syntax import read_config
from returnn_lite.errors import ConfigError, ConfigErrors, closest, did_you_mean

if TYPE_CHECKING:
    from returnn_lite.log import Log

_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
# How alike (difflib ratio) a name must be to be taken for a misspelling: batchsize, learning_rte, optimiser are;
# data_files, num_layers, seq_order are helper names.
_ALIKE = 0.84
OTHER_BACKENDS = ("tf_", "jax_")


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
        ConfigError(f"++{key}", f"unknown option {key!r}{_hint(key, config)}")
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
    """Logs `misspelt_keys` (verbosity 1) and options of other backends (2); to be called once, when the set-up has read
    all its options."""
    for key, meant in misspelt_keys(config).items():
        log.v1(f'WARNING: config option "{key}" is not known and was not read; did you mean "{meant}"?')
    others = [key for key in config.keys() if key.startswith(OTHER_BACKENDS) and key not in OPTIONS]
    if others and config.value("backend", None) == "torch":
        log.v2(f'WARNING: options of other backends have no effect with backend "torch": {", ".join(sorted(others))}')
