"""Lengths and margins of windows against counting, windows as an axis and back."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.ops.windows import Spread, Window, centred, overlap_add, pad_axes, sliding

WINDOWS = [
    Window(size, stride, dilation, padding)
    for size in (1, 2, 3, 5)
    for stride in (1, 2, 3)
    for dilation in (1, 2)
    for padding in ("same", "valid", 0, 2, (2, 0))
]


def fitting(n: int, w: Window) -> int:
    """How many windows fit, by trying."""
    return sum(1 for start in range(0, max(n, 0), w.stride) if start + (w.size - 1) * w.dilation < n)


@pytest.mark.parametrize("w", WINDOWS, ids=str)
def test_lengths_are_numbers_of_windows_that_fit(w: Window) -> None:
    for n in range(9):
        left, right = w.margins(n, ragged=True)
        wanted = fitting(n + left + right, w) if n or w.padding != "same" else 0
        assert w.length(n) == wanted
    lengths = torch.arange(9, dtype=torch.int32)
    assert w.length(lengths).tolist() == [w.length(n) for n in range(9)]
    assert w.length(lengths).dtype == torch.int32
    if w.keeps_axis:
        assert w.length(lengths).equal(lengths)


def test_same_has_one_more_on_the_right() -> None:
    assert Window(4, padding="same").margins(10, ragged=True) == (1, 2)
    assert Window(3, 2, padding="same").margins(10, ragged=True) == (0, 1)
    assert Window(3, 2, padding="same").margins(9, ragged=True) == (1, 1)
    assert centred(4) == (1, 2) and centred(3) == (1, 1) and centred(1) == (0, 0)


def test_same_static_does_not_depend_on_the_longest_sequence() -> None:
    w = Window(3, 2, padding="same_static")
    assert {w.margins(n, ragged=True) for n in range(1, 9)} == {(0, 2)}
    assert w.margins(9, ragged=False) == (1, 1) and w.margins(10, ragged=False) == (0, 1)
    with pytest.raises(ConfigError, match="must be at most the window size 2, but is 4"):
        Window(2, 4, padding="same_static").margins(9, ragged=True)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("output_padding", [None, 0, 1])
@pytest.mark.parametrize(("size", "stride", "remove"), [(3, 2, 0), (2, 3, 0), (4, 2, 1), (1, 1, 0)])
def test_what_a_transposed_convolution_keeps(
    size: int, stride: int, remove: int, output_padding: int | None, same: bool
) -> None:
    spread = Spread(size, stride, same, output_padding, remove)
    for n in range(5):
        assert spread.cut(n)[1] == spread.length(n)
    assert spread.length(torch.arange(5)).tolist() == [spread.length(n) for n in range(5)]
    if output_padding is None and not remove:
        assert spread.length(4) == 4 * stride + (0 if same else max(size - stride, 0))


def test_padding_of_axes() -> None:
    x = torch.ones(2, 3)
    assert pad_axes(x, [(1, 0), (0, 2)], 5.0).tolist() == [[5.0] * 5, [1, 1, 1, 5, 5], [1, 1, 1, 5, 5]]
    assert pad_axes(x, [(0, 0)]) is x


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("margins", [(0, 0), (1, 2)])
@pytest.mark.parametrize("frames", [0, 1, 2, 7])
def test_sliding_windows_and_back(frames: int, margins: tuple[int, int], stride: int) -> None:
    x = torch.arange(2.0 * frames * 4).reshape(2, frames, 4) + 1
    found = sliding(x, 1, 3, stride, margins)
    padded = torch.cat([torch.zeros(2, margins[0], 4), x, torch.zeros(2, margins[1], 4)], 1)
    starts = range(0, max(padded.shape[1] - 2, 0), stride)
    assert found.shape == (2, len(starts), 4, 3)
    for i, start in enumerate(starts):
        assert torch.equal(found[:, i], padded[:, start : start + 3].transpose(1, 2))
    windows = found.transpose(2, 3)
    wanted = torch.zeros(2, (len(starts) - 1) * stride + 3 if starts else 0, 4)
    for i, start in enumerate(starts):
        wanted[:, start : start + 3] += windows[:, i]
    assert torch.equal(overlap_add(windows, 1, stride), wanted)
