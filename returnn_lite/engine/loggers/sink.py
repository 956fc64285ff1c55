"""What takes the scalars of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError, did_you_mean

KEY = "loggers"
Values = Mapping[str, float]


class Sink(Protocol):
    """A place for scalars by name. Its methods may raise OSError; `begin` ImportError, where a package is missing."""

    name: str  # in the config

    def begin(self, epoch: int, global_step: int) -> None:
        """A run begins here: what was written of this and later epochs and steps is repeated, and no longer counts."""

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a training step."""

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch, once for each name. All so far is written then."""

    def close(self) -> None:
        """The run is over."""


def require_known_options(
    logger: str, options: ConfigDict, known: Iterable[str] | None, *, texts: Iterable[str] = ()
) -> None:
    """ConfigError for options that a logger does not have, and for values of `texts` that are none. None: all known."""
    listed = sorted(options if known is None else known)
    for option, value in options.items():
        if option not in listed:
            text = f"unknown option {option!r}{did_you_mean(str(option), listed)}: {', '.join(listed)}"
            raise ConfigError(f'{KEY}["{logger}"]', text)
        if option in texts and not (isinstance(value, str | os.PathLike) and str(value)):
            raise ConfigError(f'{KEY}["{logger}"]["{option}"]', f"must be a text, but is {value!r} instead")
