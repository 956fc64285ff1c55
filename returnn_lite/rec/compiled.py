"""`torch_compile`: the layers inside a loop compiled by torch.compile, tick by tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from returnn_lite.network.compiling.options import explained

INSIDE = "what is inside of this loop"


class CompiledTick:
    """`turn_all` of a loop, compiled from the second run on.

    The first run is not: it settles how axes are placed, which is no work for a compiler. `path`: that of the loop, for
    errors. Raises ConfigError if torch.compile refuses the options.
    """

    def __init__(self, turn_all: Callable[..., None], options: Mapping[str, Any], path: str) -> None:
        self._plain, self._path = turn_all, path
        self._is_first = True
        with explained(path, INSIDE):
            self._compiled: Callable[..., None] = torch.compile(turn_all, **options)

    @contextmanager
    def running(self) -> Iterator[Callable[..., None]]:
        """What computes the layers of a tick, for the ticks of one run; what the compiler refuses is a ConfigError."""
        if self._is_first:
            self._is_first = False
            yield self._plain
            return
        with explained(self._path, INSIDE):
            yield self._compiled
