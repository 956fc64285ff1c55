"""Masks, packing, picking of rows, dropout masks."""

import pytest
import torch

from returnn_lite.ops.dropout import dropout_mask
from returnn_lite.ops.indexing import gather_rows, scatter_rows
from returnn_lite.ops.masked import frame_mask, pack, range_mask


def test_frame_masks() -> None:
    assert frame_mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert frame_mask(torch.tensor([[1], [2]]), 2).shape == (2, 1, 2)


def test_ranges() -> None:
    positions, first = torch.arange(5), torch.tensor([[1], [3]])
    assert range_mask(positions) is None
    valid = torch.tensor([True, True, True, True, False])
    assert range_mask(positions, valid) is valid
    found = range_mask(positions, valid, start=2, first=first, size=2)
    assert found is not None
    assert found.tolist() == [[False, False, True, False, False], [False, False, False, True, False]]
    ends = range_mask(positions, end=first)
    assert ends is not None and ends.sum(1).tolist() == [1, 3]
    alone = range_mask(positions, first=first)
    assert alone is None  # without a size


def test_packing() -> None:
    packed, lengths = pack(
        torch.tensor([[4, 5, 6], [7, 8, 9]]), torch.tensor([[True, False, True], [False, True, False]])
    )
    assert packed.tolist() == [[4, 6], [8, 0]] and lengths.tolist() == [2, 1] and lengths.dtype == torch.int32
    assert pack(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))[0].shape == (2, 0)


def test_rows_by_position() -> None:
    x = torch.arange(12.0).reshape(2, 3, 2)
    index = torch.tensor([[2, 2, 0, 1], [0, 1, 1, 0]])
    picked = gather_rows(x, index)
    for b in range(2):
        for n, i in enumerate(index[b].tolist()):
            assert torch.equal(picked[b, n], x[b, i])
    sums = scatter_rows(picked, index, 4)
    wanted = torch.zeros(2, 4, 2)
    for b in range(2):
        for n, i in enumerate(index[b].tolist()):
            wanted[b, i] += picked[b, n]
    assert torch.equal(sums, wanted)


def test_positions_outside() -> None:
    x, index = torch.ones(1, 2, 1), torch.tensor([[0, 5]])
    with pytest.raises(IndexError, match=r"positions must be in \[0, 2\), but go from 0 to 5"):
        gather_rows(x, index)
    with pytest.raises(IndexError):
        scatter_rows(x, index, 3)
    assert scatter_rows(x, index, 3, drop=True).flatten().tolist() == [1.0, 0.0, 0.0]
    assert scatter_rows(x, -1 - index, 3, drop=True).flatten().tolist() == [0.0, 0.0, 0.0]


def test_dropout_masks() -> None:
    mask = dropout_mask(torch.zeros(1, dtype=torch.float64), (100, 100), 0.25, torch.Generator().manual_seed(1))
    assert mask.dtype == torch.float64 and set(mask.flatten().tolist()) == {0.0, 1 / 0.75}
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.02)
