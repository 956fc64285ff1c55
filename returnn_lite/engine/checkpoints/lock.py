"""One training at a time per model: a lock that the system takes back when its process ends, however it ends."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # a byte behind the text: others cannot read what is locked

    def _lock(file: int) -> None:
        os.lseek(file, FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


SUFFIX = ".lock"


@contextlib.contextmanager
def model_lock(model: str | None, log: Log) -> Iterator[None]:
    """Holds `<model>.lock`, and removes it at the end; a file left by a killed run does not count.

    Raises ConfigError if another process trains this model, or if its folder cannot be written.
    """
    if not model:
        yield
        return
    folder = os.path.dirname(model) or "."
    new_folder = not os.path.isdir(folder)
    file = _locked(model + SUFFIX, log)
    try:
        yield
    finally:
        if sys.platform == "win32":  # where open files cannot be removed
            os.close(file)
        with contextlib.suppress(OSError):  # the folder is gone, or has other files
            os.unlink(model + SUFFIX)
            if new_folder:
                os.rmdir(folder)
        if sys.platform != "win32":
            os.close(file)


def _locked(path: str, log: Log) -> int:
    """The descriptor of the locked file; its text says who holds it."""
    while True:
        file = _opened(path)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            os.lseek(file, 0, os.SEEK_SET)
            holder = os.read(file, 200).decode(errors="replace") or "unknown"
            os.close(file)
            text = f"another run ({holder}) is training {path[: -len(SUFFIX)]!r}; end it, or use another name"
            raise ConfigError("model", text) from None
        except OSError as exc:  # a file system without locks
            log.v4(f"note: {path!r} cannot be locked: {exc}")
        if _is_still(path, file):
            break
        os.close(file)  # its holder has just ended and removed it
    with contextlib.suppress(OSError):  # no space: the text is only for others to read
        os.ftruncate(file, 0)
        os.write(file, f"pid {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _opened(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as exc:
        raise ConfigError("model", f"the folder of `model` cannot be written: {exc}") from exc


def _is_still(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
