"""CRC-32C (Castagnoli): by google-crc32c where it is installed (25 times as fast), else of large arrays in numpy.

In numpy: the register is linear over GF(2), so the data is cut into lanes that advance side by side, four bytes at a
time; then neighbours are joined: the register of the left one advances by the length of the right one, and both are
added.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np

POLYNOMIAL = 0x82F63B78  # reflected
LANE_WORDS = 64  # words of 4 bytes in a lane
LANE_BYTES = 4 * LANE_WORDS
MAX_LANES = 4096  # a chunk of 1 MiB stays in the cache
ONES = 0xFFFFFFFF

Words = np.ndarray
Part: TypeAlias = bytes | bytearray | memoryview | np.ndarray


def crc32c(*parts: Part) -> int:
    """The checksum over the parts one after the other; b"123456789" -> 0xE3069283."""
    return _function()(*parts)


@cache
def _function() -> Callable[..., int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an installation without its C part, which goes byte by byte
        try:
            from google_crc32c import extend, implementation
        except ImportError:
            return own_crc32c
    return functools.partial(_by, extend) if implementation == "c" else own_crc32c


def _by(extend: Callable[[int, bytes | np.ndarray], int], *parts: Part) -> int:
    found = 0
    for part in parts:
        found = extend(found, part if isinstance(part, bytes) else _bytes(part))
    return found


def own_crc32c(*parts: Part) -> int:
    """The same, in numpy."""
    register = ONES
    for part in parts:
        register = _advance_over(register, _bytes(part))
    return register ^ ONES


def masked(crc: int) -> int:
    """The form in which checksums are stored."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & ONES


def _bytes(part: Part) -> np.ndarray:
    return np.frombuffer(part, np.uint8) if len(part) else np.zeros(0, np.uint8)


def _advance_over(register: int, data: np.ndarray) -> int:
    """The register after the bytes: the tail byte by byte, all before it in chunks of lanes."""
    whole = len(data) // LANE_BYTES * LANE_BYTES
    at = 0
    while at < whole:
        lanes = min(MAX_LANES, 1 << ((whole - at) // LANE_BYTES).bit_length() - 1)
        end = at + lanes * LANE_BYTES
        words = data[at:end].view("<u4").reshape(lanes, LANE_WORDS)
        register = int(_apply(_lanes_operator(lanes), np.array([register], np.uint32))[0]) ^ _chunk(words)
        at = end
    table = _byte_table()
    for byte in data[whole:].tobytes():
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _chunk(words: Words) -> int:
    """The register after a chunk (lanes, LANE_WORDS) that begins with register 0."""
    low, high = _word_operator()
    register = np.zeros(len(words), np.uint32)
    for column in words.T:
        register = register ^ column
        register = low[register & 0xFFFF] ^ high[register >> 16]
    lanes = 1
    while len(register) > 1:
        register = _apply(_lanes_operator(lanes), register[0::2]) ^ register[1::2]
        lanes *= 2
    return int(register[0])


# --- operators: what a register becomes after a number of zero bytes, as two tables for its lower and upper half ------

Operator = tuple[Words, Words]


def _apply(operator: Operator, register: Words) -> Words:
    low, high = operator
    after: Words = low[register & 0xFFFF] ^ high[register >> 16]
    return after


def _operator(images: Words) -> Operator:
    """The tables of a linear map that is given by the images of the 32 single bits."""
    tables = []
    for half in (images[:16], images[16:]):
        table = np.zeros(1, np.uint32)
        for image in half:
            table = np.concatenate([table, table ^ image])
        tables.append(table)
    return tables[0], tables[1]


def _bits() -> Words:
    return np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32), dtype=np.uint32)


@cache
def _byte_table() -> list[int]:
    """The register's lower byte -> what it adds to the rest when it is shifted out."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


@cache
def _word_operator() -> Operator:
    """After 4 zero bytes."""
    table = np.array(_byte_table(), np.uint32)
    images = _bits()
    for _ in range(4):
        images = table[images & 0xFF] ^ (images >> 8)
    return _operator(images)


@cache
def _lanes_operator(lanes: int) -> Operator:
    """After `lanes` (a power of two) lanes of zeros."""
    if lanes > 1:
        half = _lanes_operator(lanes // 2)
        return _operator(_apply(half, _apply(half, _bits())))
    images = _bits()
    for _ in range(LANE_WORDS):
        images = _apply(_word_operator(), images)
    return _operator(images)
