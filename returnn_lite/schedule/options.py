"""The config options of the learning rate control. Numbers may be texts: line-based configs have nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite
from returnn_lite.errors import ConfigError

Change = Callable[[float], float]  # of a learning rate


@dataclass(frozen=True)
class Options:
    """The options, checked. Thresholds are relative errors, or a difference of scores for newbob_abs."""

    control: str
    learning_rate: float
    learning_rates: Mapping[int, float]
    min_learning_rate: float  # a lower bound for the result of a decay, nothing else
    min_epochs_per_rate: int
    error_measures: Sequence[str]
    relative_to_rate: bool
    div_by_old: bool
    relative_threshold: float
    absolute_threshold: float
    grow_threshold: float
    decay: Change
    growth: Change
    multi_epochs: int
    multi_interval: int
    always: bool
    pretrain_learning_rate: float

    @classmethod
    def from_config(cls, config: Config) -> "Options":
        """Reads all of them, with their defaults."""
        learning_rate = _rate(config, "learning_rate", 1.0)
        threshold = _number(config, "newbob_relative_error_threshold", -0.01)
        epochs = _whole(config, "newbob_multi_num_epochs", 5)
        return cls(
            control=config.value("learning_rate_control", "constant"),
            learning_rate=learning_rate,
            learning_rates=_rates_by_epoch(config),
            min_learning_rate=_rate(config, "min_learning_rate", 0.0),
            min_epochs_per_rate=_whole(config, "learning_rate_control_min_num_epochs_per_new_lr", 0),
            error_measures=[str(name) for name in config.list("learning_rate_control_error_measure", [])],
            relative_to_rate=bool(config.bool("learning_rate_control_relative_error_relative_lr", False)),
            div_by_old=bool(config.bool("newbob_relative_error_div_by_old", False)),
            relative_threshold=threshold,
            absolute_threshold=_number(config, "newbob_error_threshold", -0.01),
            grow_threshold=_number(config, "newbob_relative_error_grow_threshold", threshold),
            decay=_change(config, ("learning_rate_decay", "newbob_learning_rate_decay"), 0.5),
            growth=_change(config, ("learning_rate_growth", "newbob_learning_rate_growth"), 1.0),
            multi_epochs=epochs,
            multi_interval=_whole(config, "newbob_multi_update_interval", epochs),
            always=bool(config.bool("use_learning_rate_control_always", False)),
            pretrain_learning_rate=_rate(config, "pretrain_learning_rate", learning_rate),
        )


def _number(config: Config, key: str, default: float) -> float:
    value = config.float(key, default)
    if value is not None and math.isnan(value):
        raise ConfigError(key, f"must be a number, but is {value!r} instead")
    return default if value is None else float(value)


def _rate(config: Config, key: str, default: float) -> float:
    return finite(key, _number(config, key, default), low=0)


def _whole(config: Config, key: str, default: int) -> int:
    value = config.int(key, default)
    return default if value is None else value


def _change(config: Config, keys: Sequence[str], default: float) -> Change:
    """A factor, a function of the learning rate, or None (no change); the first key that is given counts."""
    key = next((key for key in keys if config.has(key)), keys[0])
    value = config.literal(key, default)
    if callable(value):
        return lambda rate: float(value(rate))
    if value is None:
        return lambda rate: rate
    factor = finite(key, config.float(key, default), low=0)
    return lambda rate: rate * factor


def _rates_by_epoch(config: Config) -> dict[int, float]:
    """`learning_rates`: a list for the epochs from 1 on, a dict by epoch, or a text, evaluated to a dict."""
    key = "learning_rates"
    value = config.typed_value(key) if config.is_typed(key) else _from_line(config.value(key, None))
    if isinstance(value, str):
        value = _evaluated(key, value)
    if isinstance(value, list | tuple):
        value = dict(enumerate(value, start=1))
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(key, f"must be a list, or a dict with epochs as keys, but is {value!r} instead")
    try:
        rates = {int(epoch): float(rate) for epoch, rate in (value or {}).items()}
    except (TypeError, ValueError):
        raise ConfigError(key, f"must hold numbers for epochs, but is {value!r} instead") from None
    return {epoch: finite(f"{key} (of epoch {epoch})", rate, low=0) for epoch, rate in rates.items()}


def _from_line(text: str | None) -> Any:
    """`0.1,0.2` -> [0.1, 0.2]; anything else stays text."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        return text


def _evaluated(key: str, text: str) -> Mapping[int, float]:
    try:
        value = eval(text, {})  # a config is trusted code
    except Exception as error:
        raise ConfigError(key, f"cannot evaluate {text!r}: {type(error).__name__}: {error}") from error
    if not isinstance(value, Mapping):
        raise ConfigError(key, f"the text must give a dict {{epoch: learning rate}}, but gives {value!r}")
    return value
