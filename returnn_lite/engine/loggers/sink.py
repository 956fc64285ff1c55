"""What takes the scalars of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

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
