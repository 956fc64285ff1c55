"""Random numbers of calls that take no generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Calls without a generator of their own draw from this one, of a CUDA device; None: from the default one.

    The default generator shares its state for that time, which also a CUDA graph repeats.
    """
    if generator is None:
        yield
        return
    default = torch.cuda.default_generators[generator.device.index or 0]
    own = default.graphsafe_get_state()
    default.graphsafe_set_state(generator)
    try:
        yield
    finally:
        default.graphsafe_set_state(own)
