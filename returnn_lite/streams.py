"""stdout and stderr of a program whose work must not end because nobody reads what it prints."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class _Lenient(io.FileIO):
    """A descriptor for writing. What it does not take (a closed pipe or terminal, a full disk) is dropped."""

    def write(self, content: object) -> int:
        """Writes what can be written."""
        size = memoryview(content).nbytes  # type: ignore[arg-type]
        with suppress(OSError):
            return super().write(content) or size  # type: ignore[arg-type]
        return size


def keep_going_without_readers() -> None:
    """From now on no error of stdout or stderr reaches those who print; characters that they lack are escaped."""
    for number in (0, 1, 2):
        _open_closed(number)
    sys.stdout = _lenient(sys.stdout, 1)
    sys.stderr = _lenient(sys.stderr, 2)


def _open_closed(number: int) -> None:
    """Connects a standard descriptor that is closed to nothing, lest the next file that is opened gets its number."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _lenient(stream: TextIO | None, number: int) -> TextIO:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line_buffering = number == 2 or bool(getattr(stream, "line_buffering", False))
    if stream is not None:
        with suppress(OSError):
            stream.flush()
        if sys.platform == "win32" and stream.isatty():  # a console takes characters, not bytes
            return stream
    raw = _Lenient(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )
