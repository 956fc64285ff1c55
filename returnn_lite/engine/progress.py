"""The clock of a pass over a dataset, and the lines of the log by it."""

import time
from collections.abc import Mapping

from returnn_lite.engine.batch_like import BatchLike
from returnn_lite.engine.log_form import LogForm, Pass, Scores, Tally, write
from returnn_lite.engine.report import hms
from returnn_lite.log import Log

SLOW_DATA = 0.9  # less computing time than that is worth a hint
SECONDS_SHOWN = 0.2  # between changes of the line on a terminal
BAR = 20  # its characters
ENOUGH_SECONDS = 30.0  # shorter passes say nothing about that
FASTER_DATA = (
    "it may help to read the dataset in several processes (num_workers = 4), or to write what is computed from it to"
    " HDF files (tools/hdf_dump.py)"
)


class Progress:
    """Clock of one pass over a dataset; writes its step lines and its last line.

    axes: the names of the time axes by data key.
    """

    def __init__(
        self, form: LogForm, what: Pass, log: Log, *, axes: Mapping[str, str] | None = None, interval: int = 1
    ) -> None:
        self.form, self.what, self.log, self.interval = form, what, log, interval
        self.axes, self.tally = axes or {}, Tally()
        self.start = self._last = time.monotonic()
        self._shown, self._on_terminal = 0.0, log.on_terminal
        write(log, form.pass_begins(what))

    @property
    def name(self) -> str:
        """What its lines begin with."""
        return self.form.pass_name(self.what)

    @property
    def steps(self) -> int:
        """How many were made."""
        return self.tally.steps

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def count(self, batch: BatchLike) -> None:
        """Counts a step's frames."""
        self.tally.add_lengths(batch)

    def step_line(self, step: int, scores: Scores, sizes: Mapping[str, object], complete: float | None) -> None:
        """Writes the line of every `interval`-th step (verbosity 5); complete: fraction done, if known, in (0, 1]."""
        if self._on_terminal and time.monotonic() - self._shown > SECONDS_SHOWN:
            self._show(step, scores, complete)
        if self.log.verbosity < 5 or step % self.interval:
            return
        elapsed, self._last, took = self.elapsed, time.monotonic(), time.monotonic() - self._last
        shown = [*self.form.step_items(self.what, scores, sizes), *self.form.times(self.what, took)]
        parts = [f"{self.name}, step {step}", *shown, f"elapsed {hms(elapsed)}"]
        if complete is not None:
            parts.append(f"exp. remaining {hms(elapsed / max(complete, 1e-9) - elapsed)}, complete {complete:.2%}")
        self.log.v5(", ".join(parts))

    def _show(self, step: int, scores: Scores, complete: float | None) -> None:
        """Writes a line that is seen on terminals until the next one."""
        self._shown, elapsed = time.monotonic(), self.elapsed
        shown = [f"{name} {value:.4g}" for name, value in scores.items()]
        parts = [f"{self.name}, step {step}", *shown, f"{elapsed / (step + 1):.3f} sec/step"]
        if complete:
            done = "━" * round(complete * BAR)
            left = hms(elapsed / complete - elapsed)
            parts = [f"{done}{'╌' * (BAR - len(done))} {complete:.0%}", f"remaining {left}", *parts]
        self.log.write_passing(", ".join(parts))

    def finish(self, wait_time: float) -> None:
        """Writes the last line; wait_time: seconds spent waiting for data."""
        self.log.write_passing("")
        elapsed = self.tally.seconds = self.elapsed
        computing = self.tally.computing = 1 - wait_time / elapsed if elapsed > 0 else 1.0
        write(self.log, self.form.pass_ends(self.what, self.tally, self.axes))
        if computing < SLOW_DATA and elapsed > ENOUGH_SECONDS:
            waited = f"{self.name}: {wait_time:.0f} of {elapsed:.0f} seconds were spent waiting for data"
            self.log.v2(f"{waited}; {FASTER_DATA}")
