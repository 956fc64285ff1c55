"""The config that is running: what functions of configs find without being handed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from returnn_lite.config_value import ConfigValue

C = TypeVar("C", bound="Options")


class Options(Protocol):
    """What is asked of a `Config` here."""

    def has(self, key: str) -> bool:
        """Whether an option is set."""

    def bool(self, key: str, default: bool, index: int = 0) -> bool:
        """An option as a bool."""

    def float(self, key: str, default: float, index: int = 0) -> float:
        """An option as a number."""

    def typed_value(self, key: str, default: ConfigValue = None) -> ConfigValue:
        """An option as it was set."""


_RUNNING: list[Options] = []  # the last one is running


def running_config() -> Options | None:
    """The config that is running, if one is."""
    return _RUNNING[-1] if _RUNNING else None


def set_running_config(config: Options | None) -> None:
    """Makes this the config that is running; None: there is none."""
    _RUNNING[:] = [] if config is None else [config]


@contextmanager
def running_config_ctx(config: C) -> Iterator[C]:
    """While open, this config is running."""
    _RUNNING.append(config)
    try:
        yield config
    finally:
        _RUNNING.pop()
