"""Sorted tables of (key, value) in a file, in the layout of LevelDB: blocks of entries with shared key prefixes.

File: data blocks, an empty meta-index block, an index block (last key of each data block -> where it is), a footer.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.snappy import decompress
from returnn_lite.compat.tf_checkpoint.wire import Defect, read_bytes, read_varint, varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE = 48
TRAILER_SIZE = 5  # kind of compression, checksum
BLOCK_SIZE = 262144
RESTART_INTERVAL = 16
UNCOMPRESSED, SNAPPY = 0, 1

Entry = tuple[bytes, bytes]


# --- reading ----------------------------------------------------------------------------------------------------------


def read_table(content: bytes) -> list[Entry]:
    """All entries in order, their keys strictly increasing. Raises Defect."""
    if len(content) < FOOTER_SIZE or content[-len(MAGIC) :] != MAGIC:
        raise Defect("is not a table of names (its last bytes are not the magic number)")
    footer = content[-FOOTER_SIZE:]
    meta, at = _read_handle(footer, 0)
    index, _ = _read_handle(footer, at)
    body = content[:-FOOTER_SIZE]
    _read_block(body, *meta)
    entries: list[Entry] = []
    for _, value in _entries(_read_block(body, *index)):
        handle, end = _read_handle(value, 0)
        if end != len(value):
            raise Defect("has an index entry with further bytes")
        entries += _entries(_read_block(body, *handle))
    for (before, _), (after, _) in zip(entries, entries[1:], strict=False):
        if before >= after:
            raise Defect(f"must have increasing keys, but has {after!r} after {before!r}")
    return entries


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(body: bytes, offset: int, size: int) -> bytes:
    """The content of a block, its checksum verified."""
    stored, _ = read_bytes(body, offset, size + TRAILER_SIZE)
    (checksum,) = struct.unpack_from("<I", stored, size + 1)
    if checksum != masked(crc32c(stored[: size + 1])):
        raise Defect(f"is damaged: checksum of the block at byte {offset} does not match")
    kind = stored[size]
    if kind not in (UNCOMPRESSED, SNAPPY):
        raise Defect(f"has a block with the unknown compression {kind}")
    return stored[:size] if kind == UNCOMPRESSED else decompress(stored[:size])


def _entries(block: bytes) -> list[Entry]:
    if len(block) < 8:
        raise Defect("has a block without restart points")
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    if restarts < 1 or end < 0:
        raise Defect(f"has a block with {restarts} restart points")
    data, at, key, found = block[:end], 0, b"", []
    while at < end:
        shared, at = read_varint(data, at)
        unshared, at = read_varint(data, at)
        size, at = read_varint(data, at)
        if shared > len(key):
            raise Defect("has a key that shares more than the key before it has")
        rest, at = read_bytes(data, at, unshared)
        value, at = read_bytes(data, at, size)
        key = key[:shared] + rest
        found.append((key, value))
    return found


# --- writing ----------------------------------------------------------------------------------------------------------


class _Block:
    """A block in the making."""

    def __init__(self, restart_interval: int) -> None:
        self.interval = restart_interval
        self.content, self.restarts, self.count, self.last = bytearray(), [0], 0, b""

    @property
    def size(self) -> int:
        return len(self.content) + 4 * len(self.restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.count and self.count % self.interval == 0:
            self.restarts.append(len(self.content))
        elif self.count:
            shared = len(os.path.commonprefix([self.last, key]))
        self.content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self.count, self.last = self.count + 1, key

    def bytes(self) -> bytes:
        return bytes(self.content) + struct.pack(f"<{len(self.restarts) + 1}I", *self.restarts, len(self.restarts))


def write_table(entries: Iterable[Entry]) -> bytes:
    """The file of a table; the keys must be strictly increasing."""
    out, index = bytearray(), _Block(1)

    def put(block: _Block) -> bytes:
        """Appends a block; returns its handle."""
        content = block.bytes() + bytes([UNCOMPRESSED])
        handle = varint(len(out)) + varint(len(content) - 1)
        out.extend(content + struct.pack("<I", masked(crc32c(content))))
        return handle

    block = _Block(RESTART_INTERVAL)
    full: tuple[bytes, bytes] | None = None  # last key and handle of a block that waits for the key behind it
    for key, value in entries:
        if full is not None:
            index.add(separator(full[0], key), full[1])
            full = None
        block.add(key, value)
        if block.size >= BLOCK_SIZE:
            full, block = (key, put(block)), _Block(RESTART_INTERVAL)
    if block.count:
        full = (block.last, put(block))
    if full is not None:
        index.add(successor(full[0]), full[1])
    footer = put(_Block(1)) + put(index)
    return bytes(out) + footer.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def separator(last: bytes, following: bytes) -> bytes:
    """A short key from `last` on and before `following`."""
    i = len(os.path.commonprefix([last, following]))
    if i < min(len(last), len(following)) and last[i] < 0xFF and last[i] + 1 < following[i]:
        return last[:i] + bytes([last[i] + 1])
    return last


def successor(last: bytes) -> bytes:
    """A short key from `last` on."""
    for i, byte in enumerate(last):
        if byte != 0xFF:
            return last[:i] + bytes([byte + 1])
    return last
