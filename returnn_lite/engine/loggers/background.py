"""A sink that is served by a thread of its own."""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Callable
from functools import partial

from returnn_lite.engine.loggers.sink import Sink, Values

PATIENCE = 20.0  # seconds for what is left, when the run is over


class InBackground:
    """A sink whose calls a thread makes, in order: a service that answers late, or never, does not hold up a run.

    What fails there is raised by the next call, and then nothing more is done. The package has the sink's name.
    """

    def __init__(self, sink: Sink) -> None:
        self.name, self.sink = sink.name, sink
        self.waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None

    def begin(self, epoch: int, global_step: int) -> None:
        """Begins the run there. ImportError without the package."""
        importlib.import_module(self.name)
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, name=f"logs to {self.name}", daemon=True)
            self.thread.start()
        self._later(partial(self.sink.begin, epoch, global_step))

    def step(self, global_step: int, values: Values) -> None:
        """Scalars of a step."""
        self._later(partial(self.sink.step, global_step, dict(values)))

    def epoch(self, epoch: int, values: Values) -> None:
        """Scalars of an epoch."""
        self._later(partial(self.sink.epoch, epoch, dict(values)))

    def close(self) -> None:
        """Waits a little for what is left. TimeoutError if that does not suffice."""
        self._later(self.sink.close)
        if self.thread is not None:
            self.waiting.put(None)
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                raise TimeoutError(f"no answer within {PATIENCE:g} seconds")
        self._raise()

    def _later(self, act: Callable[[], None]) -> None:
        self._raise()
        self.waiting.put(act)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            while (act := self.waiting.get()) is not None:
                act()
        except Exception as exc:  # services raise many kinds
            self.error = exc
