"""The config that is running: what functions of configs find without being handed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from returnn_lite.config.config import Config

_RUNNING: list[Config] = []  # the last one is running


def running_config() -> Config | None:
    """The config that is running, if one is."""
    return _RUNNING[-1] if _RUNNING else None


def set_running_config(config: Config | None) -> None:
    """Makes this the config that is running; None: there is none."""
    _RUNNING[:] = [] if config is None else [config]


@contextmanager
def running_config_ctx(config: Config) -> Iterator[Config]:
    """While open, this config is running."""
    _RUNNING.append(config)
    try:
        yield config
    finally:
        _RUNNING.pop()
