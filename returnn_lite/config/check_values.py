"""Global options that are a single bool or number: other values, and those out of range, are refused at the start.

Which they are, and their ranges: see the table of `config/options/`. The others are checked by whoever reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from returnn_lite.config.config import Config
from returnn_lite.config.option_types import Range, is_bool
from returnn_lite.config.options import OPTIONS
from returnn_lite.config.values import parse_bool, wrong
from returnn_lite.errors import ConfigError, ConfigErrors


def ranged(kind: type) -> dict[str, Range]:
    """The options that are numbers of this kind, and their ranges."""
    found = {name: get_args(option.kind) for name, option in OPTIONS.items() if get_origin(option.kind) is Annotated}
    return {name: limit for name, (annotated, limit) in found.items() if annotated is kind}


BOOLS = tuple(name for name, option in OPTIONS.items() if option.kind is bool)
INTS, FLOATS = ranged(int), ranged(float)


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
