"""Scalars for TensorBoard."""

from __future__ import annotations

import os
import time

from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.loggers.event_file import EventFile, known_tags
from returnn_lite.engine.loggers.sink import Values, require_known_options

FOLDER = "tensorboard"
EPOCHS = "epochs"  # the folder inside with what is counted in epochs, not in steps
FLUSH_SECONDS = 60.0


class TensorBoard:
    """Event files by step in the option `folder`, and in its sub-folder `epochs` by epoch."""

    name = "tensorboard"
    steps: EventFile
    epochs: EventFile

    def __init__(self, options: ConfigDict) -> None:
        require_known_options(self.name, options, ["folder"], texts=["folder"])
        self.folder, self.first, self.flushed = str(options.get("folder", FOLDER)), 1, time.monotonic()
        self.made_up: set[str] | None = None  # what the files have already of the epoch before the first one

    def begin(self, epoch: int, global_step: int) -> None:
        """New files, after which readers forget what is repeated."""
        self.first = epoch
        self.steps = EventFile(self.folder, global_step)
        self.epochs = EventFile(os.path.join(self.folder, EPOCHS), epoch)

    def step(self, global_step: int, values: Values) -> None:
        """Is written once in a while."""
        self.steps.add(global_step, dict(values))
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.steps.flush()
            self.flushed = time.monotonic()

    def epoch(self, epoch: int, values: Values) -> None:
        """Is written at once."""
        self.steps.flush()
        if epoch < self.first:
            if self.made_up is None:
                self.made_up = known_tags(self.epochs.folder, epoch)
            values = {tag: value for tag, value in values.items() if tag not in self.made_up}
        if values:
            self.epochs.add(epoch, dict(values))
            self.epochs.flush()

    def close(self) -> None:
        """Writes what is left."""
        self.steps.flush()
