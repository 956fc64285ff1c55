"""Faults in the file operations of a process: the n-th one kills it, or fails, or is only counted.

An operation is opening a file for writing, writing to it, fsync, rename or replace, remove, and making or removing a
folder, inside one folder tree.
"""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137


class Faults:
    """Patches this process for good. `at`: the number of the operation that goes wrong; `error`: with which errno, or
    None for the end of the process. `operations`: what was done so far, as "write out/model.001.pt.tmp"."""

    def __init__(self, folder: Path, at: int | None = None, error: int | None = None) -> None:
        self.folder, self.at, self.error = os.path.realpath(folder), at, error
        self.operations: list[str] = []
        self.log = open(os.path.join(self.folder, "..", "operations"), "w")
        self.real_open = builtins.open
        builtins.open = io.open = self.open
        for name in ("replace", "rename", "remove", "unlink", "rmdir", "mkdir"):
            setattr(os, name, self.patched(name, getattr(os, name)))
        self.real_fsync, os.fsync = os.fsync, self.fsync
        self.real_os_open, os.open = os.open, self.os_open

    def inside(self, path: Any) -> str | None:
        """The path in the tree; None for others."""
        if not isinstance(path, str | os.PathLike):
            return None
        full = os.path.realpath(os.path.dirname(os.path.abspath(path))) + "/" + os.path.basename(path)
        return os.path.relpath(full, self.folder) if full.startswith(self.folder + "/") else None

    def count(self, kind: str, path: str, before_end: Callable[[], object] = lambda: None, named: bool = True) -> None:
        """One more operation; where it is the one, the fault."""
        self.operations.append(f"{kind} {path}")
        self.log.write(f"{kind} {path}\n")
        self.log.flush()
        if len(self.operations) - 1 != self.at:
            return
        if self.error is None:
            before_end()
            os._exit(KILLED)
        raise OSError(self.error, os.strerror(self.error), *([path] if named else []))

    def patched(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *more: Any, **options: Any) -> Any:
            inside = self.inside(path)
            if inside is not None:
                self.count(kind, inside)
            return real(path, *more, **options)

        return operation

    def fsync(self, number: int) -> None:
        inside = self.inside(os.readlink(f"/proc/self/fd/{number if isinstance(number, int) else number.fileno()}"))
        if inside is not None:
            self.count("fsync", inside, named=False)
        self.real_fsync(number)

    def os_open(self, path: Any, flags: int, *more: Any, **options: Any) -> int:
        inside = self.inside(path)
        if inside is not None and flags & (os.O_WRONLY | os.O_RDWR):
            self.count("open", inside)
        return self.real_os_open(path, flags, *more, **options)

    def open(self, path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        inside = self.inside(path)
        if inside is None or not set(mode) & set("wax+"):
            return self.real_open(path, mode, *more, **options)
        self.count("open", inside)
        return Written(self.real_open(path, mode, *more, **options), inside, self)


class Written:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, path: str, faults: Faults) -> None:
        self._file, self._path, self._faults = file, path, faults

    def write(self, content: Any) -> int:
        self._faults.count("write", self._path, lambda: self._half(content), named=False)
        return self._file.write(content)

    def _half(self, content: Any) -> None:
        self._file.write(content[: len(content) // 2])
        self._file.flush()

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)
