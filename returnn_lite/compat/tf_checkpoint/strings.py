"""String tensors: the lengths as varints, their checksum, then all strings one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.wire import Defect, read_bytes, read_varint, varint


def decode(data: bytes, count: int, big_endian: bool = False) -> tuple[list[bytes], int]:
    """(the strings, the checksum of the whole before masking). `big_endian`: the lengths' checksum. Raises Defect."""
    lengths, at = [], 0
    for _ in range(count):
        length, at = read_varint(data, at)
        lengths.append(length)
    stored, at = read_bytes(data, at, 4)
    expected = masked(crc32c(_words(lengths)))
    if int.from_bytes(stored, "big" if big_endian else "little") != expected:
        raise Defect("is damaged: checksum of the lengths of strings does not match")
    text, found = data[at:], []
    if sum(lengths) != len(text):
        raise Defect(f"has {len(text)} bytes of strings that should be {sum(lengths)}")
    at = 0
    for length in lengths:
        string, at = read_bytes(text, at, length)
        found.append(string)
    return found, crc32c(_words(lengths), stored, text)


def encode(strings: Sequence[bytes]) -> tuple[bytes, int]:
    """(what is stored, the checksum of the whole before masking)."""
    lengths = [len(string) for string in strings]
    stored, text = masked(crc32c(_words(lengths))).to_bytes(4, "little"), b"".join(strings)
    return b"".join(map(varint, lengths)) + stored + text, crc32c(_words(lengths), stored, text)


def as_strings(array: np.ndarray) -> list[bytes]:
    """The elements of an array of bytes or text (as UTF-8). Raises TypeError for anything else."""
    found = []
    for item in array.ravel().tolist():
        if not isinstance(item, str | bytes):
            raise TypeError(f"must be bytes or text, but is {item!r} instead")
        found.append(item.encode() if isinstance(item, str) else item)
    return found


def _words(lengths: Sequence[int]) -> bytes:
    """The lengths as the checksums take them: 4 bytes each, 8 where that is not enough."""
    return b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths)
