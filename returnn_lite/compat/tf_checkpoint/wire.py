"""Varints and the fields of protobuf messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Defect(ValueError):
    """What is wrong with a file's content; readers add which file."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it); unsigned, at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Defect("ends within a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise Defect("has a number of more than 10 bytes")


def varint(value: int) -> bytes:
    """The bytes of an unsigned or (as two's complement) negative number."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """The int64 that a varint stands for."""
    return value - (1 << 64) if value >> 63 else value


def read_bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """(`size` bytes from `at`, position behind them)."""
    if at + size > len(data):
        raise Defect(f"ends within an item of {size} bytes")
    return data[at : at + size], at + size


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) in the order of the message: ints for varint and fixed types, bytes for all others."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == VARINT:
            value, at = read_varint(message, at)
        elif kind == BYTES:
            size, at = read_varint(message, at)
            value, at = read_bytes(message, at, size)
        elif kind in (FIXED32, FIXED64):
            raw, at = read_bytes(message, at, 4 if kind == FIXED32 else 8)
            value = int.from_bytes(raw, "little")
        else:
            raise Defect(f"has a field of the unknown kind {kind}")
        if number == 0:
            raise Defect("has a field with the number 0")
        yield number, value


def number(value: int | bytes) -> int:
    """A field's value that must be a number."""
    if isinstance(value, bytes):
        raise Defect("has bytes where a number must be")
    return signed(value)


def message(value: int | bytes) -> bytes:
    """A field's value that must be bytes: a string or another message."""
    if isinstance(value, int):
        raise Defect("has a number where bytes must be")
    return value


def number_field(field: int, value: int) -> bytes:
    """A varint field; nothing for 0, the default."""
    return varint(field << 3 | VARINT) + varint(value) if value else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """A string or a message as a field; written even if it is empty."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def fixed32_field(field: int, value: int) -> bytes:
    """A field of 4 bytes; written even if it is 0."""
    return varint(field << 3 | FIXED32) + struct.pack("<I", value)
