"""Defaults that depend on the behavior version or on options of the config."""

from __future__ import annotations

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.running_config import running_config


def option(name: str) -> bool | None:
    """A bool of the config at hand; None if it is not there."""
    config = running_config()
    if config is None or not config.has(name):
        return None
    return bool(config.bool(name, True))


def from_version(name: str, version: int) -> bool:
    """A bool of the config, else whether the behavior version is at least this."""
    found = option(name)
    return BehaviorVersion.get() >= version if found is None else found


def att_dropout_broadcast_default() -> bool:
    """Whether all queries share the numbers of the dropout of attention weights: up to version 18."""
    for name in ("rf_att_dropout_broadcast", "rf_dropout_broadcast"):
        found = option(name)
        if found is not None:
            return found
    return BehaviorVersion.get() <= 18


def output_keeps_dtype() -> bool:
    """Whether modules keep the dtype of their input (or product) in mixed precision, though parameters are wider."""
    return from_version("rf_module_output_keep_dtype", 27)


def consistent_same_padding() -> bool:
    """Whether "same" padding with strides does not depend on the longest sequence."""
    return from_version("rf_use_consistent_same_padding", 24)
