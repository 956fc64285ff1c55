"""TensorFlow's checkpoint files: written and read back, foreign forms, and files that are damaged."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.compat.tf_checkpoint import Bundle, read_checkpoint, write_checkpoint, write_with_companions
from returnn_lite.compat.tf_checkpoint.crc32c import crc32c, masked
from returnn_lite.compat.tf_checkpoint.entries import CODES, Entry, Header, slice_key
from returnn_lite.compat.tf_checkpoint.strings import encode
from returnn_lite.compat.tf_checkpoint.table import read_table, write_table
from returnn_lite.compat.tf_checkpoint.wire import bytes_field, number_field
from returnn_lite.errors import ConfigError

ARRAYS = {
    "output/W": np.arange(12, dtype="float32").reshape(3, 4),
    "output/b": np.zeros(0, "float32"),
    "global_step": np.array(7, "int64"),
    "flag": np.array([True, False]),
    "z": np.array([[1 + 2j]], "complex64"),
}


def same(got: dict, want: dict) -> None:
    assert sorted(got) == sorted(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape, name
        assert np.array_equal(got[name], value), name


def store(prefix, entries: dict[bytes, Entry | bytes], data: bytes | dict[int, bytes], header: bytes | None = None):
    """Files that are not as the writer makes them."""
    shards = data if isinstance(data, dict) else {0: data}
    for shard, content in shards.items():
        (prefix.parent / f"{prefix.name}.data-{shard:05d}-of-{len(shards):05d}").write_bytes(content)
    values = {key: e if isinstance(e, bytes) else e.serialized() for key, e in entries.items()}
    table = [(b"", Header(len(shards)).serialized() if header is None else header), *sorted(values.items())]
    (prefix.parent / f"{prefix.name}.index").write_bytes(write_table(table))
    return str(prefix)


def test_round_trip(tmp_path):
    write_checkpoint(str(tmp_path / "sub" / "m.001"), ARRAYS)
    same(read_checkpoint(str(tmp_path / "sub" / "m.001")), ARRAYS)
    same(read_checkpoint(str(tmp_path / "sub" / "m.001.index")), ARRAYS)


@pytest.mark.parametrize("dtype", sorted(CODES))
def test_all_types(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    write_checkpoint(str(tmp_path / "m"), {"x": array, "scalar": array[1, 1], "moved": array.T})
    same(read_checkpoint(str(tmp_path / "m")), {"x": array, "scalar": array[1, 1], "moved": array.T})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 3))
def test_strings(tmp_path_factory, values, kind):
    prefix = str(tmp_path_factory.mktemp("strings") / "m")
    array = np.empty(len(values), object)
    array[:] = values
    write_checkpoint(prefix, {"s": array, "t": np.array(["ä", "bc"]), "one": np.array(b"x")})
    got = read_checkpoint(prefix)
    assert got["s"].tolist() == values
    assert got["t"].tolist() == ["ä".encode(), b"bc"] and got["one"].shape == () and got["one"].item() == b"x"


def test_the_bytes_of_a_small_file(tmp_path):
    """A number, as the format's description shows it."""
    write_checkpoint(str(tmp_path / "m"), {"n": np.array(7, "int64")})
    (_, header), (name, entry) = read_table((tmp_path / "m.index").read_bytes())
    checksum = struct.pack("<I", masked(crc32c(struct.pack("<q", 7))))
    assert header == bytes.fromhex("08011a020801") and name == b"n"
    assert entry == bytes.fromhex("08091200280835") + checksum
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == struct.pack("<q", 7)


def test_names_are_sorted_in_the_data(tmp_path):
    write_checkpoint(str(tmp_path / "m"), {"b": np.array(2, "uint8"), "a": np.array(1, "uint8")})
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == b"\1\2"


def test_bfloat16_and_big_endian(tmp_path):
    raw = struct.pack(">H", 0x3F80) + struct.pack(">f", 1.5)
    entries = {
        b"half": Entry(14, (1,), 0, 0, 2, masked(crc32c(raw[:2]))),
        b"x": Entry(1, (), 0, 2, 4, masked(crc32c(raw[2:]))),
    }
    got = read_checkpoint(store(tmp_path / "m", entries, raw, Header(1, big_endian=True).serialized()))
    same(got, {"half": np.ones(1, "float32"), "x": np.array(1.5, "float32")})


def plain(array: np.ndarray, offset: int = 0, shard: int = 0) -> Entry:
    raw = array.tobytes()
    return Entry(CODES[array.dtype.name], array.shape, shard, offset, len(raw), masked(crc32c(raw)))


def test_several_data_files_with_gaps(tmp_path):
    a, b = np.arange(3, dtype="int32"), np.ones((2, 2), "float64")
    files = {0: b"gap" + b.tobytes(), 1: a.tobytes()}
    got = read_checkpoint(store(tmp_path / "m", {b"a": plain(a, 0, 1), b"b": plain(b, 3, 0)}, files))
    same(got, {"a": a, "b": b})


def sliced(shape, *parts) -> bytes:
    """The entry of a tensor in parts, each of (start, length) per axis."""
    size = b"".join(bytes_field(2, number_field(1, n)) for n in shape)
    message = number_field(1, 1) + bytes_field(2, size)
    for part in parts:
        axes = (b"" if n is None else number_field(1, start) + number_field(2, n) for start, n in part)
        message += bytes_field(7, b"".join(bytes_field(1, axis) for axis in axes))
    return message


TOP, BOTTOM = ((0, 3), (0, 300)), ((3, 2), (0, None))


def test_a_tensor_in_parts(tmp_path):
    whole = np.arange(1500, dtype="float32").reshape(5, 300)
    entries = {
        b"pv": sliced(whole.shape, TOP, BOTTOM),
        slice_key(b"pv", TOP): plain(whole[:3]),
        slice_key(b"pv", BOTTOM): plain(whole[3:], 3600),
    }
    same(read_checkpoint(store(tmp_path / "m", entries, whole.tobytes())), {"pv": whole})
    del entries[slice_key(b"pv", BOTTOM)]
    with pytest.raises(ConfigError, match="has no part"):
        read_checkpoint(store(tmp_path / "m", entries, whole.tobytes()))
    entries[b"pv"] = sliced(whole.shape, TOP)
    with pytest.raises(ConfigError, match="do not make up the shape"):
        read_checkpoint(store(tmp_path / "m", entries, whole.tobytes()))


def test_keys_of_parts():
    assert slice_key(b"pv", TOP).hex() == "00707600010102808380c12c"
    assert slice_key(b"p", ((10000, None),)).hex() == "007000010101e027107f"
    assert slice_key(b"\0\xff", ()).hex() == "0000ffff00000100"


def test_companions(tmp_path):
    for epoch in (1, 2, 1):
        write_with_companions(str(tmp_path / f"m.00{epoch}"), ARRAYS)
    names = [f'"{tmp_path}/m.00{epoch}"' for epoch in (2, 1)]
    expected = [f"model_checkpoint_path: {names[-1]}", *(f"all_model_checkpoint_paths: {name}" for name in names)]
    assert (tmp_path / "checkpoint").read_text().splitlines() == expected
    assert (tmp_path / "m.002.meta").read_bytes() == b""


# --- what is refused --------------------------------------------------------------------------------------------------

X = np.arange(6, dtype="float32")
DATA = X.tobytes()
STRINGS, STRINGS_CRC = encode([b"ab", b"c"])


def entry(**changes) -> Entry:
    return Entry(**{**plain(X).__dict__, **changes})


DEFECTS = {
    "its checksum does not match": ({b"x": entry(checksum=1)}, DATA),
    "has 24 bytes, but its shape": ({b"x": entry(shape=(7,))}, DATA),
    "file is too short": ({b"x": entry(offset=4)}, DATA),
    "unknown type 21": ({b"x": entry(dtype=21)}, DATA),
    "data file 1 of 1": ({b"x": entry(shard=1)}, DATA),
    "negative place": ({b"x": entry(offset=-8)}, DATA),
    "unknown size": ({b"x": number_field(1, 1) + bytes_field(2, bytes_field(2, number_field(1, -1)))}, DATA),
    "unknown rank": ({b"x": number_field(1, 1) + bytes_field(2, number_field(3, 1))}, DATA),
    "ends within": ({b"x": b"\x12\x20"}, DATA),
    "not UTF-8": ({b"\xff": plain(X)}, DATA),
    "needs a reader of version 2": ({}, b"", number_field(1, 1) + bytes_field(3, number_field(2, 2))),
    "data file 0 of 0": ({b"x": plain(X)}, DATA, b""),
    "checksum of the lengths": ({b"x": Entry(7, (2,), 0, 0, len(STRINGS))}, b"\2\2" + STRINGS[2:]),
    "bytes of strings that should be": ({b"x": Entry(7, (2,), 0, 0, len(STRINGS) - 1)}, STRINGS),
    "ends within a number": ({b"x": Entry(7, (9,), 0, 0, 1)}, STRINGS),
}


@pytest.mark.parametrize("text", DEFECTS)
def test_defects(tmp_path, text):
    prefix = store(tmp_path / "m", *DEFECTS[text])
    with pytest.raises(ConfigError, match=text):
        read_checkpoint(prefix)


def test_strings_as_others_write_them(tmp_path):
    whole = Entry(7, (2,), 0, 0, len(STRINGS), masked(STRINGS_CRC))
    assert read_checkpoint(store(tmp_path / "m", {b"x": whole}, STRINGS))["x"].tolist() == [b"ab", b"c"]


def test_missing_files_and_names(tmp_path):
    prefix = str(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"m\.index: file does not exist"):
        read_checkpoint(prefix)
    write_checkpoint(prefix, ARRAYS)
    with pytest.raises(ConfigError, match="unknown tensor 'outputs/W'.*did you mean \"output/W\""):
        Bundle(prefix).read("outputs/W")
    (tmp_path / "m.data-00000-of-00001").unlink()
    assert "output/W" in Bundle(prefix).entries
    with pytest.raises(ConfigError, match=r"m\.data-00000-of-00001: file does not exist"):
        read_checkpoint(prefix)
    (tmp_path / "m.index").write_bytes(b"no table")
    with pytest.raises(ConfigError, match="magic number"):
        read_checkpoint(prefix)


@pytest.mark.parametrize("arrays, text", [
    ({"": X}, "must not be empty"),
    ({"x": np.array(["a", 1], object)}, "must be bytes or text, but is 1"),
    ({"x": np.zeros(2, "longdouble")}, "cannot be stored"),
])  # fmt: skip
def test_what_cannot_be_written(tmp_path, arrays, text):
    with pytest.raises(ConfigError, match=text):
        write_checkpoint(str(tmp_path / "m"), arrays)
    assert not (tmp_path / "m.index").exists()
