"""One HDF file of sequences: what is in it, checked, and reading of ranges of frames."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from returnn_lite.errors import ConfigError

MAX_OPEN_FILES = 64
TAGS_AT_ONCE = 1 << 16  # read from a file


class Handles:
    """Open HDF files of this process, the least used closed first. A copy in another process opens its own."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.pid, self.lock = os.getpid(), threading.RLock()
        self.files: OrderedDict[str, h5py.File] = OrderedDict()
        self.arrays: dict[str, dict[str, h5py.Dataset]] = {}  # by file: looking them up costs more than a small reading

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._start()

    @contextmanager
    def open(self, path: str) -> Iterator[h5py.File]:
        """The file, for as long as the block runs. Raises ConfigError if it cannot be opened."""
        if self.pid != os.getpid():  # after a fork: the parent's handles must be left alone
            self._start()
        with self.lock:
            if path not in self.files:
                self.files[path] = _open(path)
            self.files.move_to_end(path)
            while len(self.files) > MAX_OPEN_FILES:
                self._close_one(last=False)
            yield self.files[path]

    def read(self, path: str, name: str, start: int, end: int) -> np.ndarray:
        """Entries start…end of one array of a file."""
        with self.open(path) as file:
            arrays = self.arrays.setdefault(path, {})
            if name not in arrays:
                arrays[name] = file[name]
            entries: np.ndarray = arrays[name][start:end]
            return entries

    def _close_one(self, last: bool) -> None:
        path, file = self.files.popitem(last)
        self.arrays.pop(path, None)
        file.close()

    def close(self) -> None:
        """Closes all files; they are opened again when needed."""
        if self.pid == os.getpid():
            with self.lock:
                while self.files:
                    self._close_one(last=True)


def _open(path: str) -> h5py.File:
    if not os.path.exists(path):
        raise ConfigError(path, "no such file")
    try:
        return h5py.File(path, "r")
    except OSError as exc:
        raise ConfigError(path, f"cannot be read as an HDF file: {exc}") from exc


@dataclass
class Stream:
    """One data key of a file: where it is, and its dim and ndim (with time, without batch)."""

    key: str
    path: str  # of the HDF dataset
    dim: int
    ndim: int
    shape: tuple[int, ...]  # of one frame
    dtype: np.dtype


class HdfFile:
    """The sequences of one file. `lengths` int [N, columns]: frames per sequence, one column per key of `columns`."""

    def __init__(self, path: str, handles: Handles):
        self.path, self.handles = path, handles
        self.num_inputs = 0
        self.labels: dict[str, list[str]] = {}
        try:
            with handles.open(path) as file:
                self._describe(file)
        except (OSError, RuntimeError, UnicodeDecodeError) as exc:
            raise ConfigError(path, f"damaged: {exc}") from exc
        self.by_key = {
            stream.key: (stream, offsets) for stream, offsets in zip(self.streams, self.offsets, strict=True)
        }
        self.num_outputs = {stream.key: (stream.dim, stream.ndim) for stream in self.streams}

    def _describe(self, file: h5py.File) -> None:
        self.streams = self._streams(file)
        self.columns = [stream.key for stream in self.streams]
        if not self._target_keys(file) and self._array(file, "seqLengths").shape[1:] != (1,):
            self.columns = [*self.columns, "classes"]  # a column without data; dumps of one stream have none
        self.lengths = self._lengths(file)
        self.num_seqs = len(self.lengths)
        self._check_tags(file)
        self.offsets = [self._offsets(file, column, stream) for column, stream in enumerate(self.streams)]
        self._read_labels(file)

    def _fail(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key}", message)

    # --- what is in the file ---

    def _streams(self, file: h5py.File) -> list[Stream]:
        streams = [self._input_stream(file)] if "inputs" in file else []
        for key in self._target_keys(file):
            if key == "data" and "inputs" in file:
                raise self._fail("targets/data/data", 'a target must not be called "data" where there are inputs')
            streams.append(self._target_stream(file, key))
        if not streams:
            raise self._fail("inputs", "this file has neither inputs nor targets")
        return streams

    def _array(self, file: h5py.File, path: str) -> h5py.Dataset:
        found = file.get(path)
        if not isinstance(found, h5py.Dataset):
            raise self._fail(path, "missing" if found is None else "must be an array, but is a group instead")
        if not found.ndim:
            raise self._fail(path, "must have an axis for the frames, but is a single value")
        return found

    def _input_stream(self, file: h5py.File) -> Stream:
        array = self._array(file, "inputs")
        if array.ndim == 1:
            if "inputPattSize" not in file.attrs:
                raise self._fail(
                    "inputs", 'is 1-D, so the file needs the attribute "inputPattSize", the number of classes'
                )
            dim = int(file.attrs["inputPattSize"])
        else:
            dim = int(array.shape[1])
        self.num_inputs = dim
        return Stream("data", "inputs", dim, array.ndim, array.shape[1:], array.dtype)

    @staticmethod
    def _target_keys(file: h5py.File) -> list[str]:
        arrays, sizes = file.get("targets/data"), file.get("targets/size")
        return sorted({*(arrays or ()), *(sizes.attrs if sizes is not None else ())})

    def _target_stream(self, file: h5py.File, key: str) -> Stream:
        path = f"targets/data/{key}"
        array = self._array(file, path)
        size = file["targets/size"].attrs.get(key) if "targets/size" in file else None
        dim, ndim = (1 if array.ndim == 1 else array.shape[-1]), array.ndim
        if size is not None:
            size = np.atleast_1d(size)
            if len(size) > 2:
                raise self._fail(
                    f"targets/size[{key}]", f"must be a number or a pair (dim, ndim), but is {size} instead"
                )
            dim, ndim = int(size[0]), int(size[1]) if len(size) == 2 else ndim
        return Stream(key, path, int(dim), ndim, array.shape[1:], array.dtype)

    def _lengths(self, file: h5py.File) -> np.ndarray:
        lengths = self._array(file, "seqLengths")
        if lengths.ndim != 2 or lengths.shape[1] != len(self.columns):
            raise self._fail(
                "seqLengths",
                f"must have the shape (sequences, {len(self.columns)}), one column per key of {self.columns},"
                f" but has {lengths.shape} instead",
            )
        found: np.ndarray = lengths[()]
        if found.dtype.kind not in "iu" or (found.size and found.min() < 0):
            raise self._fail("seqLengths", "must be whole numbers >= 0")
        return found

    def _check_tags(self, file: h5py.File) -> None:
        tags = self._array(file, "seqTags")
        if tags.shape != (self.num_seqs,):
            raise self._fail("seqTags", f"must have one tag for each of {self.num_seqs} sequences, but is {tags.shape}")

    def _offsets(self, file: h5py.File, column: int, stream: Stream) -> np.ndarray:
        """Frame at which each sequence starts, int64 [N + 1]."""
        offsets = np.zeros(self.num_seqs + 1, np.int64)
        np.cumsum(self.lengths[:, column], out=offsets[1:])
        frames = file[stream.path].shape[0]
        if frames < offsets[-1]:
            raise self._fail(
                stream.path, f"has {frames} frames, but the lengths of the sequences add up to {offsets[-1]}"
            )
        return offsets

    def _read_labels(self, file: h5py.File) -> None:
        paths = {stream.key: f"targets/labels/{stream.key}" for stream in self.streams}
        if "inputs" in file:
            paths["data"] = "labels"
        for key, path in paths.items():
            if path in file and file[path].size:
                self.labels[key] = [text_of(label) for label in file[path][()].ravel()]

    # --- reading ---

    def read(self, key: str, first: int, count: int) -> list[np.ndarray]:
        """The arrays of one key of `count` consecutive sequences; one reading of the file."""
        stream, offsets = self.by_key[key]
        borders = offsets[first : first + count + 1].tolist()
        try:
            frames = self.handles.read(self.path, stream.path, borders[0], borders[-1])
        except (OSError, KeyError) as exc:
            last = first + count - 1
            raise self._fail(stream.path, f"cannot be read (sequences {first} to {last}): {exc}") from exc
        return [frames[a - borders[0] : b - borders[0]] for a, b in zip(borders[:-1], borders[1:], strict=True)]

    def read_tags(self) -> Iterator[list[bytes]]:
        """All tags as UTF-8, some at a time."""
        with self.handles.open(self.path) as file:
            tags = file["seqTags"]
            for start in range(0, self.num_seqs, TAGS_AT_ONCE):
                yield [_bytes_of(tag) for tag in tags[start : start + TAGS_AT_ONCE]]


def _bytes_of(value: str | bytes) -> bytes:
    """UTF-8 up to the first NUL."""
    raw = value.encode("utf8") if isinstance(value, str) else bytes(value)
    return raw.partition(b"\0")[0]


def text_of(value: str | bytes) -> str:
    """A stored string, up to the first NUL."""
    return _bytes_of(value).decode("utf8")
