"""Reading of entries of zip files: in memory only, with checks of names and sizes."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from typing import Any

from returnn_lite.errors import ConfigError

MAX_ENTRY = 4 << 30  # bytes of one entry
MAX_RATIO = 500  # of an entry that is larger than MIN_SUSPECT
MIN_SUSPECT = 64 << 20
LOCAL_HEADER = 30  # bytes that each entry has at least, beside its data
MAX_TAIL = 1 << 17  # bytes at the end of a file in which its directory is described


class ZipFiles:
    """Open zip files of this process. A copy in another process opens its own."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.pid, self.lock = os.getpid(), threading.RLock()
        self.files: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._start()

    def names(self, path: str) -> list[str]:
        """Names of the entries."""
        with self.lock:
            return self._file(path).namelist()

    def read(self, path: str, name: str) -> bytes:
        """The content of an entry. Raises ConfigError if there is none, or it is damaged or much too large."""
        if self.pid != os.getpid():
            self._start()
        with self.lock:
            file = self._file(path)
            try:
                info = file.getinfo(name)
            except KeyError:
                raise ConfigError(path, f'no entry "{name}" in the zip file') from None
            _check_size(info, path)
            try:
                return file.read(info)
            except (zipfile.BadZipFile, OSError, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
                raise ConfigError(path, f'the entry "{name}" is damaged: {exc}') from None

    def _file(self, path: str) -> zipfile.ZipFile:
        if path not in self.files:
            self.files[path] = _opened(path)
        return self.files[path]

    def close(self) -> None:
        """Closes all files; they are opened again when needed."""
        if self.pid == os.getpid():
            with self.lock:
                for file in self.files.values():
                    file.close()
                self.files.clear()


def _opened(path: str) -> zipfile.ZipFile:
    if not os.path.isfile(path):
        raise ConfigError(path, "no such file")
    size = os.path.getsize(path)
    count, directory = _directory(path, size)
    if count * LOCAL_HEADER + directory > size:
        raise ConfigError(path, f"its {count} entries cannot fit in {size} bytes: the file is damaged or a zip bomb")
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as exc:
        raise ConfigError(path, f"cannot be read as a zip file: {exc}") from None
    entries = file.infolist()
    if sum(info.compress_size + LOCAL_HEADER for info in entries) > size:
        file.close()
        raise ConfigError(path, f"its {len(entries)} entries overlap: this is a zip bomb, not a zip file of data")
    for info in entries:
        if unsafe(info.filename):
            file.close()
            raise ConfigError(path, f'has an entry with the unsafe name "{info.filename}"')
    return file


def _directory(path: str, size: int) -> tuple[int, int]:
    """(number of entries, bytes of their directory) as the end of the file says; 0, 0 if it does not."""
    with open(path, "rb") as file:
        file.seek(max(0, size - MAX_TAIL))
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(tail):
            return 0, 0
        count, directory = struct.unpack_from("<HL", tail, at + 10)
        if count == 0xFFFF and at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
            file.seek(min(struct.unpack_from("<Q", tail, at - 12)[0], size))
            record = file.read(56)
            if len(record) == 56 and record[:4] == b"PK\6\6":
                count, directory = struct.unpack_from("<QQ", record, 32)
    return count, directory


def unsafe(name: str) -> bool:
    """Whether a name is absolute or leads out of the folder."""
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":"


def _check_size(info: zipfile.ZipInfo, path: str) -> None:
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > MAX_ENTRY or (info.file_size > MIN_SUSPECT and ratio > MAX_RATIO):
        raise ConfigError(
            path,
            f'the entry "{info.filename}" would have {info.file_size} bytes, {ratio:.0f} times its size in the file',
        )
