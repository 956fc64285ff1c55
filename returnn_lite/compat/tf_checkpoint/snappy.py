"""Decompression of the raw Snappy format: a varint with the length, then literals and copies from what was before."""

from __future__ import annotations

from returnn_lite.compat.tf_checkpoint.wire import Defect, read_bytes, read_varint

LITERAL, COPY_1, COPY_2 = 0, 1, 2


def decompress(data: bytes) -> bytes:
    """The uncompressed bytes. Raises Defect."""
    size, at = read_varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == LITERAL:
            length, at = _literal_length(data, at, tag >> 2)
            part, at = read_bytes(data, at, length)
            out += part
            continue
        if tag & 3 == COPY_1:
            low, at = read_bytes(data, at, 1)
            length, distance = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | low[0]
        else:
            raw, at = read_bytes(data, at, 2 if tag & 3 == COPY_2 else 4)
            length, distance = (tag >> 2) + 1, int.from_bytes(raw, "little")
        _copy(out, distance, length)
    if len(out) != size:
        raise Defect(f"has a compressed block of {len(out)} bytes that should have {size}")
    return bytes(out)


def _literal_length(data: bytes, at: int, code: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, at
    raw, at = read_bytes(data, at, code - 59)
    return int.from_bytes(raw, "little") + 1, at


def _copy(out: bytearray, distance: int, length: int) -> None:
    """Appends `length` bytes from `distance` before the end; they may reach into what is being appended."""
    if not 0 < distance <= len(out):
        raise Defect("has a compressed block that copies from before its beginning")
    source = bytes(out[-distance:])
    out += (source * (length // distance + 1))[:length]
