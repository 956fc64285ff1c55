"""Reading TensorFlow's checkpoints (version 2): `P.index`, and the data files `P.data-SSSSS-of-NNNNN`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from returnn_lite.compat.tf_checkpoint import strings
from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.entries import BFLOAT16, STRING, Entry, Extents, Header, slice_key
from returnn_lite.compat.tf_checkpoint.table import read_table
from returnn_lite.compat.tf_checkpoint.wire import Defect
from returnn_lite.errors import ConfigError, did_you_mean

SUFFIXES = (".index", ".meta")


def read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    """{name: array} of all tensors, every checksum verified; strings as bytes objects, bfloat16 as float32.

    prefix: with or without ".index".  Raises ConfigError naming the file and what is wrong with it.
    """
    bundle = Bundle(prefix)
    return {name: bundle.read(name) for name in bundle.entries}


def data_file(prefix: str, shard: int, shards: int) -> str:
    """The name of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


@contextmanager
def _defects_of(filename: str, what: str = "") -> Iterator[None]:
    """Turns a defect, or a file that cannot be read, into an error that names the file (and the tensor `what`)."""
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(filename, f"file does not exist{f', but should hold {what}' if what else ''}") from None
    except OSError as exc:
        raise ConfigError(filename, f"cannot be read: {exc.strerror}") from exc
    except Defect as exc:
        raise ConfigError(filename, f"{what + ': ' if what else ''}{exc}") from None


class Bundle:
    """An open checkpoint: the index is read, the tensors are read when asked for."""

    def __init__(self, prefix: str) -> None:
        self.prefix = next((prefix[: -len(s)] for s in SUFFIXES if prefix.endswith(s)), prefix)
        index = self.prefix + ".index"
        with _defects_of(index):
            with open(index, "rb") as file:
                table = read_table(file.read())
            if not table or table[0][0] != b"":
                raise Defect("has no header")
            self.header = Header.parse(table[0][1])
            self._stored = {key: Entry.parse(value) for key, value in table[1:]}
            self.entries = {_text(key): e for key, e in self._stored.items() if not key.startswith(b"\0")}

    def read(self, name: str) -> np.ndarray:
        """One tensor. Raises ConfigError, also if there is none of this name."""
        if name not in self.entries:
            hint = did_you_mean(name, list(self.entries))
            raise ConfigError(self.prefix, f"unknown tensor {name!r} in the checkpoint{hint}")
        entry = self.entries[name]
        return self._assembled(name, entry) if entry.slices else self._whole(name, entry)

    def _whole(self, name: str, entry: Entry) -> np.ndarray:
        filename = data_file(self.prefix, entry.shard, self.header.shards)
        with _defects_of(filename, f"tensor {name!r}"):
            if entry.shard >= self.header.shards:
                raise Defect(f"refers to data file {entry.shard} of {self.header.shards}")
            return self._decoded(entry, _read_range(filename, entry))

    def _decoded(self, entry: Entry, raw: np.ndarray) -> np.ndarray:
        if entry.dtype == STRING:
            found, checksum = strings.decode(raw.tobytes(), entry.count, self.header.big_endian)
            _check(entry, checksum)
            array = np.empty(len(found), object)
            array[:] = found
            return array.reshape(entry.shape)
        stored = entry.stored_dtype
        if entry.size != entry.count * stored.itemsize:
            expected = entry.count * stored.itemsize
            raise Defect(f"has {entry.size} bytes, but its shape {entry.shape} means {expected}")
        _check(entry, crc32c(raw))
        array = (
            raw.view(stored.newbyteorder(">" if self.header.big_endian else "<"))
            .astype(stored, copy=False)
            .reshape(entry.shape)
        )
        return (array.astype(np.uint32) << 16).view(np.float32) if entry.dtype == BFLOAT16 else array

    def _assembled(self, name: str, entry: Entry) -> np.ndarray:
        """A tensor that is stored in parts."""
        with _defects_of(self.prefix + ".index", f"tensor {name!r}"):
            places = [_place(extents, entry.shape) for extents in entry.slices]
            if sum(math.prod(part.stop - part.start for part in place) for place in places) != entry.count:
                raise Defect(f"has parts which do not make up the shape {entry.shape}")
            missing = np.ones(entry.shape, bool)
            array: np.ndarray | None = None
            for place, extents in zip(places, entry.slices, strict=True):
                part = self._part(name, extents, entry)
                if part.shape != missing[place].shape:
                    raise Defect(f"has a part of shape {part.shape} for a place of shape {missing[place].shape}")
                array = np.empty(entry.shape, part.dtype) if array is None else array
                array[place], missing[place] = part, False
            if array is None or missing.any():
                raise Defect(f"has {int(missing.sum())} elements that are in no part")
        return array

    def _part(self, name: str, extents: Extents, whole: Entry) -> np.ndarray:
        stored = self._stored.get(slice_key(name.encode(), extents))
        if stored is None or stored.dtype != whole.dtype:
            raise Defect(f"has no part {extents} of its type")
        return self._whole(name, stored)


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise Defect(f"has a name that is not UTF-8: {key!r}") from None


def _read_range(filename: str, entry: Entry) -> np.ndarray:
    """The stored bytes of a tensor."""
    available = os.path.getsize(filename) - entry.offset
    if available < entry.size:
        raise Defect(f"file is too short: {max(available, 0)} bytes are left of {entry.size}")
    return np.fromfile(filename, np.uint8, entry.size, offset=entry.offset)


def _check(entry: Entry, checksum: int) -> None:
    if masked(checksum) != entry.checksum:
        raise Defect("is damaged: its checksum does not match")


def _place(extents: Extents, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Where a part lies in the whole."""
    if len(extents) != len(shape):
        raise Defect(f"has a part with {len(extents)} axes, but is of shape {shape}")
    place = []
    for (start, length), size in zip(extents, shape, strict=True):
        end = size if length is None else start + length
        if not 0 <= start <= end <= size:
            raise Defect(f"has a part from {start} to {end} of an axis of size {size}")
        place.append(slice(start, end))
    return tuple(place)
