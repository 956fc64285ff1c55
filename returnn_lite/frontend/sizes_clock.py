"""When sizes were changed last: what was computed from sizes before holds as long as the clock stands."""

from __future__ import annotations

_TICKS = [0]


def now() -> int:
    """The number of changes so far."""
    return _TICKS[0]


def tick() -> None:
    """To be called when some sizes may have changed."""
    _TICKS[0] += 1
