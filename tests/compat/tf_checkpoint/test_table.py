"""The table in an index file, its wire format, and compressed blocks."""

import struct

import pytest

from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.snappy import decompress
from returnn_lite.compat.tf_checkpoint.table import MAGIC, read_table, separator, successor, write_table
from returnn_lite.compat.tf_checkpoint.wire import Defect, fields, read_varint, signed, varint


@pytest.mark.parametrize("count", [0, 1, 16, 17, 400])
def test_round_trip(count):
    entries = [(f"layer/{i:04d}/W".encode(), bytes([i % 256]) * (i % 40)) for i in range(count)]
    assert read_table(write_table(entries)) == entries


def test_several_blocks():
    entries = [(f"{i:05d}".encode(), b"x" * 1000) for i in range(700)]
    content = write_table(entries)
    assert read_table(content) == entries
    assert len(content) > 2 * 262144


def test_keys_of_the_index():
    assert separator(b"abcx", b"abz") == b"abd"
    assert separator(b"ab1", b"ab2") == b"ab1"  # nothing lies between 1 and 2
    assert separator(b"ab", b"abc") == b"ab"
    assert successor(b"output/b") == b"p"
    assert successor(b"\xff\xffa") == b"\xff\xffb"
    assert successor(b"\xff") == b"\xff"


def test_an_empty_block_has_one_restart_point():
    assert write_table([])[:8] == struct.pack("<II", 0, 1)


def test_every_damaged_byte_is_found():
    content = write_table([(b"", b"head"), (b"name", b"value"), (b"names", b"more")])
    body = len(content) - 48
    for at in [*range(body), *range(len(content) - len(MAGIC), len(content))]:
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        with pytest.raises(Defect):
            read_table(bytes(damaged))
    for size in range(len(content)):
        with pytest.raises(Defect):
            read_table(content[:size])


def test_keys_must_increase():
    with pytest.raises(Defect, match="increasing keys"):
        read_table(write_table([(b"b", b""), (b"a", b"")]))


def compressed_block(content: bytes) -> bytes:
    """A block stored as one Snappy literal."""
    stored = varint(len(content)) + bytes([61 << 2]) + struct.pack("<H", len(content) - 1) + content + b"\x01"
    return stored + struct.pack("<I", masked(crc32c(stored)))


def test_a_compressed_block():
    entries = [(b"", b"head"), (b"name", b"value" * 50)]
    plain = write_table(entries)
    restarts = struct.pack("<II", 0, 1)
    data = compressed_block(plain[: plain.index(restarts + b"\0") + len(restarts)])
    meta = struct.pack("<II", 0, 1) + b"\0"
    meta += struct.pack("<I", masked(crc32c(meta)))
    handle = varint(0) + varint(len(data) - 5)
    index = varint(0) + varint(1) + varint(len(handle)) + b"o" + handle + struct.pack("<II", 0, 1) + b"\0"
    index += struct.pack("<I", masked(crc32c(index)))
    at = len(data) + len(meta)
    footer = varint(len(data)) + varint(8) + varint(at) + varint(len(index) - 5)
    assert read_table(data + meta + index + footer.ljust(40, b"\0") + MAGIC) == entries


def test_snappy():
    assert decompress(b"\x04\x0cabcd") == b"abcd"
    assert decompress(b"\x0a\x04ab\x11\x02") == b"ab" + b"abababab"  # a copy that overlaps itself
    assert decompress(b"\x06\x08abc\x0a\x03\x00") == b"abcabc"
    for bad in (b"\x05\x0cabcd", b"\x04\x0cab", b"\x04\x01\x01", b"\x08\x04ab\x11\x05"):
        with pytest.raises(Defect):
            decompress(bad)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 1 << 40, (1 << 63) - 1, -1, -(1 << 63)])
def test_varints(value):
    assert signed(read_varint(varint(value), 0)[0]) == value


def test_wrong_messages():
    for bad in (b"\x80", b"\xff" * 11, b"\x0b", b"\x00\x00", b"\x12\x05ab", b"\x0d\x01"):
        with pytest.raises(Defect):
            list(fields(bad))
