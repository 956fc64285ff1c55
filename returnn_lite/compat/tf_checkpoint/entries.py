"""The values of an index file: a header, and for each tensor its type, shape and place in the data files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from returnn_lite.compat.tf_checkpoint.wire import (
    Defect,
    bytes_field,
    fields,
    fixed32_field,
    message,
    number,
    number_field,
)

STRING, BFLOAT16 = 7, 14
VERSION = 1  # of the format: what this module reads and writes

# Code -> how an element is stored: a quantised number as the plain one, bfloat16 (14) as its bits.
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    11: "int8", 12: "uint8", 13: "int32", 14: "uint16", 15: "int16", 16: "uint16", 17: "uint16", 18: "complex128",
    19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
QUANTISED = range(11, 17)
CODES = {name: code for code, name in DTYPES.items() if code not in QUANTISED}

Extents = tuple[tuple[int, int | None], ...]  # (start, length) of each axis; length None = the whole axis


@dataclass(frozen=True)
class Header:
    """What the index says of the whole; `shards` = number of data files."""

    shards: int = 1
    big_endian: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Raises Defect, also for a file that wants a newer reader."""
        found = {key: value for key, value in fields(data)}
        oldest = max((number(v) for k, v in fields(message(found.get(3, b""))) if k == 2), default=0)
        if oldest > VERSION:
            raise Defect(f"needs a reader of version {oldest}, but this one is of version {VERSION}")
        return cls(number(found.get(1, 0)), number(found.get(2, 0)) == 1)

    def serialized(self) -> bytes:
        """The bytes of the message."""
        endianness = number_field(2, int(self.big_endian))
        return number_field(1, self.shards) + endianness + bytes_field(3, number_field(1, VERSION))


@dataclass(frozen=True)
class Entry:
    """A tensor; `offset` and `size` in bytes, in the data file `shard`. `slices`: the parts it is stored as, if any."""

    dtype: int
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    slices: tuple[Extents, ...] = field(default=())

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Raises Defect, also for a type of tensor that cannot be read."""
        values: dict[int, int | bytes] = {}
        slices = []
        for key, value in fields(data):
            values[key] = value
            if key == 7:
                slices.append(_parse_extents(message(value)))
        numbers = {key: number(values.get(key, 0)) for key in (1, 3, 4, 5, 6)}
        if numbers[1] not in DTYPES and numbers[1] != STRING:
            raise Defect(f"has a tensor of the unknown type {numbers[1]}")
        if min(numbers.values()) < 0:
            raise Defect("has a tensor with a negative place or size")
        shape = _parse_shape(message(values.get(2, b"")))
        return cls(numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6], tuple(slices))

    def serialized(self) -> bytes:
        """The bytes of the message (of tensors that are stored as a whole)."""
        shape = b"".join(bytes_field(2, number_field(1, size)) for size in self.shape)
        place = number_field(3, self.shard) + number_field(4, self.offset) + number_field(5, self.size)
        return number_field(1, self.dtype) + bytes_field(2, shape) + place + fixed32_field(6, self.checksum)

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def stored_dtype(self) -> np.dtype:
        """Of the elements as they lie in the data file (not for strings)."""
        return np.dtype(DTYPES[self.dtype])


def _parse_shape(data: bytes) -> tuple[int, ...]:
    shape = []
    for key, value in fields(data):
        if key == 3 and value:
            raise Defect("has a tensor of unknown rank")
        if key == 2:
            shape.append(max((number(v) for k, v in fields(message(value)) if k == 1), default=0))
            if any(number(v) < 0 for k, v in fields(message(value)) if k == 1):
                raise Defect("has a tensor with an axis of unknown size")
    return tuple(shape)


def _parse_extents(data: bytes) -> Extents:
    extents: list[tuple[int, int | None]] = []
    for key, value in fields(data):
        if key == 1:
            parts = {k: number(v) for k, v in fields(message(value))}
            extents.append((parts.get(1, 0), parts.get(2)))
    return tuple(extents)


# --- keys of the parts of a partitioned tensor ------------------------------------------------------------------------


_ESCAPES = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


def slice_key(name: bytes, extents: Extents) -> bytes:
    """The key under which a part is stored: 0, name, rank, then start and length of each axis, so that keys sort."""
    escaped = b"".join(_ESCAPES.get(byte, bytes([byte])) for byte in name)
    numbers = (part for start, length in extents for part in (start, -1 if length is None else length))
    axes = b"".join(_ordered_signed(part) for part in numbers)
    return _ordered(0) + escaped + b"\x00\x01" + _ordered(len(extents)) + axes


def _ordered(value: int) -> bytes:
    """An unsigned number: how many bytes, then the bytes, the highest first."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def _ordered_signed(value: int) -> bytes:
    """A signed number in n bytes with 7n - 1 bits; the number of leading ones (zeros if it is negative) says n."""
    size = 1
    while not -(1 << 7 * size - 1) <= value < 1 << 7 * size - 1:
        size += 1
    ones = ((1 << size) - 1) << 8 * size - size
    return ((value & (1 << 8 * size) - 1) ^ ones).to_bytes(size, "big")
