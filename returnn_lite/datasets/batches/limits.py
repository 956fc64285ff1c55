"""Limits of batches and sequences: one number of frames for every data key, or a dict for some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

Limit = int | float | dict[str, Any] | None


def limits(value: Limit, keys: tuple[str, ...], default: float = np.inf) -> np.ndarray:
    """One bound per key, float64 [K]; `default` where there is none."""
    if isinstance(value, dict):
        numbers = [value.get(key) for key in keys]
        return np.array([default if number is None else number for number in numbers], np.float64)
    return np.full(len(keys), default if value is None else value, np.float64)


def check_limit(option: str, value: ConfigValue, *, least: float = 0, above: bool = False) -> None:
    """Raises ConfigError for anything but numbers >= `least` (or greater, with `above`), or None for no limit."""
    for path, number in _numbers(option, value):
        if number is None:
            continue
        if not _is_number(number):
            raise ConfigError(path, f"must be a number of frames or a dict of them, but is {number!r} instead")
        if number < least or above and number == least:
            bound = f"greater than {least}" if above else f">= {least}"
            raise ConfigError(path, f"must be {bound}, but is {number!r} instead")


def check_keys(option: str, value: ConfigValue, known: Collection[str], warn: Callable[[str], None]) -> None:
    """Raises ConfigError if a dict has a key like a known one, or no key that is known; warns of other unknown keys."""
    if not isinstance(value, Mapping) or not value:
        return
    for key in value:
        if key in known:
            continue
        hint = did_you_mean(str(key), known)
        message = f"unknown data key{hint or f'; known: {sorted(known)}'}"
        if hint or not any(other in known for other in value):
            raise ConfigError(f'{option}["{key}"]', message)
        warn(f'warning: {option}["{key}"]: {message}')


def check_fraction(option: str, value: ConfigValue, *, below_one: bool = False) -> None:
    """Raises ConfigError for anything but a number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1 or below_one and value == 1:
        bound = "< 1" if below_one else "<= 1"
        raise ConfigError(option, f"must be a number >= 0 and {bound}, but is {value!r} instead")


def _numbers(option: str, value: ConfigValue) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f'{option}["{key}"]', number) for key, number in value.items()]
    return [(option, value)]


def _is_number(value: ConfigValue) -> bool:
    """Whether it is a number and not NaN; truth values are none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and not math.isnan(value)
