"""Where tensors find what marks them as losses and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Marking(Protocol):
    """What tensors use of a run context."""

    @property
    def mark_as_loss(self) -> Callable[..., None]:
        """Adds a loss."""

    @property
    def mark_as_output(self) -> Callable[..., None]:
        """Adds an output."""

    @property
    def mark_as_default_output(self) -> Callable[..., None]:
        """Adds the output "output"."""


current: list[Callable[[], Marking]] = []  # gives the current run context


def marking() -> Marking:
    """The run context of the step that runs."""
    return current[0]()
