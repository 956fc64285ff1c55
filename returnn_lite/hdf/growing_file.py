"""An HDF file that grows sequence by sequence and gets its name only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import h5py
import numpy as np

from returnn_lite.errors import ConfigError
from returnn_lite.files import own_temporary, remove_abandoned, remove_if_there
from returnn_lite.hdf.unfailing_file import UnfailingFile

TEXT = h5py.string_dtype("utf8")
TEMPORARY = ".writing"
NUMBERS_A_CHUNK = 1 << 14
NUMBERS_A_WRITE = 1 << 20  # kept in memory until that many have come together


class GrowingFile:
    """Arrays that grow along their first axis. Nothing appears under `filename` before `publish`.

    Raises ConfigError if the file exists already (with `replace_empty` an empty one may be there, with `extend` any HDF
    file, which this one begins with and takes the place of in the end), and if it cannot be written: no file is left.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        replace_empty: bool = False,
        extend: bool = False,
        compression: str | None = None,
    ):
        self.filename, self.replace_empty, self.compression = os.fspath(filename), replace_empty, compression
        self.extends = extend and os.path.exists(self.filename)
        self._refuse_existing()
        folder = os.path.dirname(self.filename)
        if not os.path.isdir(folder or "."):
            raise ConfigError(self.filename, f'the directory "{folder}" does not exist')
        remove_abandoned(self.filename, TEMPORARY)
        self.temporary = own_temporary(self.filename, TEMPORARY)
        try:
            if self.extends:
                shutil.copyfile(self.filename, self.temporary)
            self._target = UnfailingFile(self.temporary, new=not self.extends)
        except OSError as exc:
            remove_if_there(self.temporary)
            raise self._cannot_be_written(exc) from None
        self.file = self._opened()
        self._pending: dict[str, list[np.ndarray]] = {}
        self._numbers = 0

    def _opened(self) -> h5py.File:
        try:
            return h5py.File(self._target, "r+" if self.extends else "w")
        except OSError as exc:
            self._target.close()
            remove_if_there(self.temporary)
            raise ConfigError(self.filename, f"cannot be read as an HDF file: {exc}") from None

    def _cannot_be_written(self, exc: OSError) -> ConfigError:
        return ConfigError(self.filename, f"cannot be written: {exc.strerror or exc}")

    def check(self) -> None:
        """Raises ConfigError, and gives up, if something could not be written so far."""
        if self._target.error is not None:
            self.discard()
            raise self._cannot_be_written(self._target.error)

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
            try:
                start = len(array)
                array.resize(start + len(frames), 0)
                array[start:] = frames
            finally:
                self.check()
        self._pending, self._numbers = {}, 0

    def _create(self, path: str, frames: np.ndarray) -> None:
        shape, dtype = frames.shape[1:], TEXT if frames.dtype.kind == "O" else frames.dtype
        row = max(int(np.prod(shape, dtype=np.int64)), 1)
        chunk = (max(NUMBERS_A_CHUNK // row, 1), *(max(size, 1) for size in shape))
        self.file.create_dataset(
            path, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk, compression=self.compression
        )

    def publish(self) -> None:
        """Closes the file and gives it its name; on disk before it is seen."""
        try:
            self.flush()
            self.file.close()
            self._target.sync()
            self._target.close()
            self.check()
        except BaseException:
            self.check()
            self.discard()
            raise
        self._refuse_existing(f"; what was to be written is in {self.temporary}")
        os.replace(self.temporary, self.filename)

    def discard(self) -> None:
        """Gives up: no file appears."""
        self._pending, self._numbers = {}, 0
        try:
            self.file.close()
        finally:
            self._target.close()
            remove_if_there(self.temporary)


def write_labels(file: h5py.File, path: str, labels: Sequence[str]) -> None:
    """Strings of fixed size, or of variable size if they are not ASCII."""
    if not labels:
        file.create_dataset(path, (0,), "S5")
    elif all(label.isascii() for label in labels):
        file.create_dataset(path, data=np.array([label.encode() for label in labels]))
    else:
        file.create_dataset(path, data=np.array(labels, object), dtype=TEXT)
