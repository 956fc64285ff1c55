"""Files that are whole or not there: written under a temporary name, synced to disk, renamed."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

TEMPORARY = ".tmp"


def write_atomically(path: str, write: Callable[[BinaryIO], object], *, suffix: str = TEMPORARY) -> None:
    """Calls `write(file)` on the temporary file `path` + `suffix`, then renames it to `path`; makes the folder.

    After an error `path` is as it was, and there is no temporary file. Raises OSError, which names a file.
    """
    temporary = path + suffix
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            _write_all(file, write)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as exc:
        remove_if_there(temporary)
        if isinstance(exc, OSError) and exc.errno and exc.filename is None:
            exc.filename = path
        raise


def _write_all(file: BinaryIO, write: Callable[[BinaryIO], object]) -> None:
    kept = _Kept(file)
    try:
        write(kept)  # type: ignore[arg-type]
    except Exception:
        if kept.error is None:
            raise
    if kept.error is not None:
        raise kept.error


class _Kept:
    """A file whose first error in writing is kept: torch.save would raise one of its own, which does not say why."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Writes, unless that failed before."""
        if self.error is None:
            try:
                return self.file.write(content)
            except OSError as exc:
                self.error = exc
        return memoryview(content).nbytes

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def remove_if_there(path: str) -> None:
    """Removes a file, or a folder with all in it, that is of no use any more; where that cannot be, it stays."""
    with suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.remove(path)


def own_temporary(path: str, suffix: str) -> str:
    """The hidden file beside `path` that this process writes to, whoever else writes the same."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{socket.gethostname()}.{os.getpid()}{suffix}")


def remove_abandoned(path: str, suffix: str) -> None:
    """Removes the files of `own_temporary` whose processes, on this host, have ended without doing so."""
    folder, name = os.path.split(path)
    start = os.path.join(folder, f".{name}.{socket.gethostname()}.")
    for found in glob.glob(f"{glob.escape(start)}*{glob.escape(suffix)}"):
        pid = found[len(start) : -len(suffix)]
        if pid.isdecimal() and not _lives(int(pid)):
            remove_if_there(found)


def _lives(pid: int) -> bool:
    """Whether there is another process of this number: one of our own number was there before us.

    On Windows, where signal 0 is Ctrl-C, nobody is asked: it may live.
    """
    if pid == os.getpid():
        return False
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True
    return True
