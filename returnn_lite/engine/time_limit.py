"""`max_train_time`: a training ends in good order before somebody else ends it."""

from __future__ import annotations

import re
import time

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigValue
from returnn_lite.engine.interrupt import OTHER_PROCESS
from returnn_lite.errors import ConfigError

OPTION = "max_train_time"
MARGIN = 1.1  # what an epoch may take longer than the longest before
TOLERANCE = 10.0  # seconds that the clocks of processes may differ
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class TimeLimit:
    """The clock of a run: whether an epoch still fits into the time. `seconds`: None for any time."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.begin = seconds, time.monotonic()
        self.longest = 0.0  # of the epochs so far, evaluation included, in seconds

    @classmethod
    def from_config(cls, config: Config) -> TimeLimit:
        """By the option: seconds, "1:30:00", "2-12:00:00" (days first), "90m", "36h", "2d". ConfigError for others."""
        value = config.typed_value(OPTION, None)
        return cls(seconds_of(config.value(OPTION, None) if value is None else value))

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begin

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return self.seconds is not None and self.elapsed >= self.seconds

    def has_ended(self, received: str | None) -> bool:
        """Whether it is the reason that a run stopped, which `received` something, maybe from another process."""
        near = self.seconds is not None and self.elapsed + TOLERANCE >= self.seconds
        return received == OPTION or near and received == OTHER_PROCESS

    def took(self, seconds: float) -> None:
        """Notes the time of an epoch."""
        self.longest = max(self.longest, seconds)

    def reason(self, epoch: int) -> str:
        """Why this epoch is not begun; "" if it is. The first one of a run always is."""
        if self.seconds is None or not self.longest or self.elapsed + MARGIN * self.longest <= self.seconds:
            return ""
        left = f"{max(self.seconds - self.elapsed, 0):.0f} of {self.seconds:.0f} seconds are left"
        return (
            f"{OPTION}: {left}, and epoch {epoch} may take {MARGIN * self.longest:.0f}; the next run continues with it"
        )


def seconds_of(value: ConfigValue) -> float | None:
    """A time in seconds; None for no limit. ConfigError for what is none."""
    if value is None or value == "" or value == 0:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    text = str(value).strip().lower()
    unit = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smhd]?)", text)
    if unit and float(unit[1]) > 0:
        return float(unit[1]) * UNITS[unit[2] or "s"]
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text)
    if not clock or isinstance(value, bool):
        forms = 'seconds, "1:30:00", "2-12:00:00" (days first), "90m", "36h" or "2d"'
        raise ConfigError(OPTION, f"must be a time ({forms}), but is {value!r} instead")
    days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)
