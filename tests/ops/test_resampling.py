"""Padding against numpy, repetition and interpolation against loops."""

import numpy as np
import pytest
import torch

from returnn_lite.ops.resampling import PAD_MODES, pad, repeated, resample, stretch

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "replication": "edge"}


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 0), (0, 3), (2, 3)])
@pytest.mark.parametrize("size", [1, 4])
def test_padding_as_numpy(size: int, left: int, right: int, mode: str) -> None:
    x = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(1))
    options = {"constant_values": 7.0} if mode == "constant" else {}
    wanted = np.pad(x.numpy(), ((0, 0), (left, right), (0, 0)), NUMPY_MODES[mode], **options)
    found = pad(x, 1, left, right, mode, 7.0)
    assert found.tolist() == wanted.tolist()


def test_repetition() -> None:
    index, lengths = repeated(torch.tensor([[2, 0, 1, 1], [0, 3, 0, 0], [0, 0, 0, 0]]))
    assert lengths.tolist() == [4, 3, 0]
    assert index[0].tolist() == [0, 0, 2, 3] and index[1, :3].tolist() == [1, 1, 1]
    assert index.max() <= 3 and index.shape == (3, 4)
    assert repeated(torch.tensor([[1, 1]]), 5)[0].shape == (1, 5)
    assert repeated(torch.zeros(2, 0, dtype=torch.int64))[0].shape == (2, 0)


@pytest.mark.parametrize(("size", "new"), [(3, 6), (4, 6), (5, 2), (1, 3)])
def test_interpolation(size: int, new: int) -> None:
    x = torch.randn(size, 2, generator=torch.Generator().manual_seed(1))
    at = [i * size / new for i in range(new)]
    nearest, linear = resample(x, 0, new), resample(x, 0, new, "linear")
    for i, position in enumerate(at):
        before = int(position + 1e-9)
        after, part = min(before + 1, size - 1), position - before
        assert torch.equal(nearest[i], x[before])
        torch.testing.assert_close(linear[i], x[before] * (1 - part) + x[after] * part)
    assert resample(x, 0, 0).shape == (0, 2) and resample(x[:0], 0, 3).tolist() == [[0, 0]] * 3


def test_cubic_interpolation_keeps_the_frames_and_constants() -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(resample(x, 0, 10, "cubic")[::2], x)
    torch.testing.assert_close(resample(torch.ones(5), 0, 8, "cubic"), torch.ones(8))


def test_stretching() -> None:
    assert stretch(torch.tensor([[1.0, 2.0]]), 1, 3, -1.0).tolist() == [[1, -1, -1, 2, -1, -1]]
