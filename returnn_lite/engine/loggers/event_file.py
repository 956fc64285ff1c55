"""Scalars in TensorBoard's files, written without a thread, so that a full disk is noticed where it occurs."""

from __future__ import annotations

import io
import os
import socket
import time
from typing import Any


class EventFile:
    """A new event file in `folder`. What earlier files of the folder say of steps >= `first` no longer counts.

    Raises OSError; ImportError without the package tensorboard.
    """

    def __init__(self, folder: str, first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder, self._event, self._summary = folder, Event, Summary
        # Readers take the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = os.path.join(folder, name)
        os.makedirs(folder, exist_ok=True)
        self._pending = io.BytesIO()
        self._records = RecordWriter(self._pending)
        self._write(file_version="brain.Event:2")
        self._write(step=first, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def _write(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())

    def add(self, step: int, values: dict[str, float]) -> None:
        """The values of some scalars at a step."""
        found = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary(value=found))

    def flush(self) -> None:
        """All that was added is in the file then."""
        try:
            with open(self.path, "ab") as file:
                file.write(self._pending.getvalue())
        except OSError as exc:
            exc.filename = exc.filename or self.path
            raise
        self._pending.seek(0)
        self._pending.truncate()


def known_tags(folder: str, step: int) -> set[str]:
    """The scalars that the folder's files have for a step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    return {tag for tag in events.Tags()["scalars"] if any(event.step == step for event in events.Scalars(tag))}
