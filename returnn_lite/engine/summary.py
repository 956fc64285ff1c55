"""Scalars for TensorBoard, on request (`tensorboard_opts`, `tf_log_dir`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

from returnn_lite.config import Config
from returnn_lite.engine.event_file import EventFile, known_tags
from returnn_lite.engine.step import StepResult
from returnn_lite.log import Log

DEFAULT_INTERVAL = 100
EPOCHS = "epochs"  # the folder inside with what is counted in epochs, not in steps
FLUSH_SECONDS = 60.0


class ScalarLog:
    """Losses and learning rates, in `folder` by step, and in its sub-folder `epochs` by epoch; None: nothing.

    It never fails a run: where a file cannot be written, a line of the log says so, and there are no further scalars.
    """

    def __init__(self, folder: str | None, log: Log, interval: int = DEFAULT_INTERVAL) -> None:
        self.folder, self.log, self.interval = folder, log, interval
        self._steps: EventFile | None = None
        self._epochs: EventFile | None = None
        self._made_up: set[str] | None = None  # what the files have already of the epoch before the first one
        self._first, self._flushed = 1, time.monotonic()

    @classmethod
    def from_config(cls, config: Config, log: Log) -> ScalarLog:
        """A log into the folder `tf_log_dir`, if that or `tensorboard_opts` is set."""
        options = config.typed_value("tensorboard_opts") or {}
        folder = config.bool_or_other("tf_log_dir", None)
        if not (options or folder) or folder is False or config.is_true("dry_run"):
            return cls(None, log)
        name = folder if isinstance(folder, str) else "tensorboard"
        return cls(name, log, int(options.get("log_every_n_train_steps", DEFAULT_INTERVAL)))

    def start(self, epoch: int, global_step: int) -> None:
        """Begins a run at this epoch and step: what the files have from there on is repeated, and no longer counts."""
        if self.folder is None:
            return
        self._first = epoch
        try:
            with self._guarded():
                self._steps = EventFile(self.folder, global_step)
                self._epochs = EventFile(os.path.join(self.folder, EPOCHS), epoch)
        except ImportError as exc:
            self.log.v1(f"WARNING: tensorboard_opts: no scalars, since the package tensorboard is needed: {exc}")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self.log.v1(f"WARNING: tensorboard_opts: no further scalars: {exc}")
            self._steps = self._epochs = None

    def step(self, global_step: int, result: StepResult, learning_rate: float) -> None:
        """The scores of a training step, every so many steps."""
        if self._steps is None or global_step % self.interval:
            return
        numbers = dict(zip(result.columns, result.scores.tolist(), strict=True))
        values = {}
        for (kind, name), value in numbers.items():
            if kind in ("cost", "error") and numbers["inv_norm", name]:
                values[f"train/{kind}:{name}"] = value / numbers["inv_norm", name]
            elif kind == "loss":
                values["train/loss"] = value
        with self._guarded():
            self._steps.add(global_step, {**values, "train/learning_rate": learning_rate})
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._steps.flush()
                self._flushed = time.monotonic()

    def trained(self, epoch: int, means: Mapping[str, float], learning_rate: float) -> None:
        """The scores of an epoch's training. All scalars so far are in the files then."""
        if self._steps is not None:
            with self._guarded():
                self._steps.flush()
        self._epoch(epoch, {**_tags("train", means), "epoch/learning_rate": learning_rate})

    def evaluated(self, epoch: int, dataset: str, means: Mapping[str, float]) -> None:
        """The scores of a dataset after an epoch, be it of this run or of the one before."""
        self._epoch(epoch, _tags(dataset, means))

    def _epoch(self, epoch: int, values: dict[str, float]) -> None:
        if self._epochs is None:
            return
        with self._guarded():
            if epoch < self._first:
                if self._made_up is None:
                    self._made_up = known_tags(self._epochs.folder, epoch)
                values = {tag: value for tag, value in values.items() if tag not in self._made_up}
            if values:
                self._epochs.add(epoch, values)
                self._epochs.flush()


def _tags(dataset: str, means: Mapping[str, float]) -> dict[str, float]:
    return {f"epoch_{dataset}/{key}": value for key, value in means.items()}
