"""An HDF file that grows sequence by sequence and gets its name only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import h5py
import numpy as np

from returnn_lite.errors import ConfigError
from returnn_lite.files import own_temporary, remove_abandoned, remove_if_there

TEXT = h5py.string_dtype("utf8")
TEMPORARY = ".writing"
NUMBERS_A_CHUNK = 1 << 14
NUMBERS_A_WRITE = 1 << 20  # kept in memory until that many have come together


class GrowingFile:
    """Arrays that grow along their first axis. Nothing appears under `filename` before `publish`.

    Raises ConfigError if the file exists already; with `replace_empty` an empty one may be there, with `extend` any HDF
    file, which this one begins with and takes the place of in the end.
    """

    def __init__(self, filename: str | os.PathLike[str], *, replace_empty: bool = False, extend: bool = False):
        self.filename, self.replace_empty = os.fspath(filename), replace_empty
        self.extends = extend and os.path.exists(self.filename)
        self._refuse_existing()
        folder = os.path.dirname(self.filename)
        if not os.path.isdir(folder or "."):
            raise ConfigError(self.filename, f'the directory "{folder}" does not exist')
        remove_abandoned(self.filename, TEMPORARY)
        self.temporary = own_temporary(self.filename, TEMPORARY)
        self.file = self._copied() if self.extends else h5py.File(self.temporary, "w")
        self._pending: dict[str, list[np.ndarray]] = {}
        self._numbers = 0

    def _copied(self) -> h5py.File:
        try:
            shutil.copyfile(self.filename, self.temporary)
            return self._reopened()
        except BaseException:
            remove_if_there(self.temporary)
            raise

    def _reopened(self) -> h5py.File:
        try:
            return h5py.File(self.temporary, "r+")
        except OSError as exc:
            raise ConfigError(self.filename, f"cannot be read as an HDF file: {exc}") from None

    def _refuse_existing(self, hint: str = "") -> None:
        if self.extends:
            return
        empty = os.path.isfile(self.filename) and not os.path.getsize(self.filename)
        if os.path.exists(self.filename) and not (empty and self.replace_empty):
            raise ConfigError(self.filename, f"this file exists already{hint}")

    @property
    def is_open(self) -> bool:
        """Whether more can be appended."""
        return bool(self.file)

    def append(self, path: str, frames: np.ndarray) -> None:
        """Adds frames [T, …] to the array at `path`."""
        if not self.is_open:
            raise ConfigError(self.filename, "is closed already")
        self._pending.setdefault(path, []).append(frames.copy())
        self._numbers += frames.size
        if self._numbers >= NUMBERS_A_WRITE:
            self.flush()

    def flush(self) -> None:
        """Writes what is kept in memory."""
        for path, parts in self._pending.items():
            frames = np.concatenate(parts)
            if path not in self.file:
                self._create(path, frames)
            array = self.file[path]
            if array.shape[1:] != frames.shape[1:] or not array.maxshape or array.maxshape[0] is not None:
                raise ConfigError(
                    f"{self.filename}: {path}", f"cannot be extended by frames of shape {frames.shape[1:]}"
                )
            start = len(array)
            array.resize(start + len(frames), 0)
            array[start:] = frames
        self._pending, self._numbers = {}, 0

    def _create(self, path: str, frames: np.ndarray) -> None:
        shape = frames.shape[1:]
        row = max(int(np.prod(shape, dtype=np.int64)), 1)
        chunk = (max(NUMBERS_A_CHUNK // row, 1), *(max(size, 1) for size in shape))
        self.file.create_dataset(path, (0, *shape), frames.dtype, maxshape=(None, *shape), chunks=chunk)

    def publish(self) -> None:
        """Closes the file and gives it its name; on disk before it is seen."""
        try:
            self.flush()
            self.file.close()
            self._sync()
        except BaseException:
            self.discard()
            raise
        self._refuse_existing(f"; what was to be written is in {self.temporary}")
        os.replace(self.temporary, self.filename)

    def _sync(self) -> None:
        descriptor = os.open(self.temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Gives up: no file appears."""
        try:
            self.file.close()  # writes what HDF5 holds back, which fails where the disk is full
        finally:
            remove_if_there(self.temporary)


def write_labels(file: h5py.File, path: str, labels: Sequence[str]) -> None:
    """Strings of fixed size, or of variable size if they are not ASCII."""
    if not labels:
        file.create_dataset(path, (0,), "S5")
    elif all(label.isascii() for label in labels):
        file.create_dataset(path, data=np.array([label.encode() for label in labels]))
    else:
        file.create_dataset(path, data=np.array(labels, object), dtype=TEXT)
