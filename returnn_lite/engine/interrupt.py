"""SIGTERM and SIGUSR1 end a training after the running step; running the same command again continues it."""

import os
import signal
from types import FrameType, TracebackType

from returnn_lite.errors import ConfigError


class Interrupted(ConfigError):
    """The run was asked to stop; nothing is lost but the running epoch."""


class StopRequest:
    """Context in which the two signals only set a flag, which `check` turns into an exception between two steps."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: str | None = None
        self._pid = os.getpid()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread: signals stay as they are
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker ends at once, as without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number).name

    def check(self) -> None:
        """Raises Interrupted if one of the signals came."""
        if self.received:
            raise Interrupted("", f"{self.received} received, stopped after the step: resume by running again")
