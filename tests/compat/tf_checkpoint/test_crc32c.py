"""Checksums."""

import sys

import numpy as np
import pytest

from returnn_lite.compat.tf_checkpoint import crc32c as module
from returnn_lite.compat.tf_checkpoint.crc32c import LANE_BYTES, MAX_LANES, POLYNOMIAL, crc32c, masked, own_crc32c


@pytest.fixture(autouse=True, params=["own", "google"])
def which(request, monkeypatch):
    """Both ways of computing it."""
    if request.param == "google":
        pytest.importorskip("google_crc32c")
    else:
        monkeypatch.setitem(sys.modules, "google_crc32c", None)
    module._function.cache_clear()
    assert (module._function() is own_crc32c) == (request.param == "own")
    yield
    module._function.cache_clear()


def by_bits(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_the_check_value():
    assert crc32c(b"123456789") == 0xE3069283
    assert masked(0) == 0xA282EAD8


@pytest.mark.parametrize("size", [0, 1, LANE_BYTES - 1, LANE_BYTES, 3 * LANE_BYTES + 5, 7 * LANE_BYTES])
def test_all_sizes(size):
    data = np.random.RandomState(size).bytes(size)
    assert crc32c(data) == by_bits(data)


def test_large_data_in_parts():
    size = MAX_LANES * LANE_BYTES * 2 + 1000
    data = np.random.RandomState(1).randint(0, 256, size).astype("uint8")
    whole = crc32c(data)
    assert whole == crc32c(data[:77], data[77:123456].tobytes(), data[123456:])
    assert whole == crc32c(memoryview(data)[:9], bytearray(data[9:].tobytes()), b"")
    data[size // 2] ^= 1
    assert crc32c(data) != whole
