"""Convolution and pooling against sums in plain Python."""

import math

import pytest
import torch

from returnn_lite.ops.convolution import average_pool, convolution, max_pool, transposed_convolution
from returnn_lite.ops.windows import Spread, Window

WINDOWS = [
    Window(3, 1, 1, "same"),
    Window(2, 2, 1, "same"),
    Window(3, 2, 2, "valid"),
    Window(4, 3, 1, "same_static"),
    Window(2, 1, 2, 1),
    Window(9, 1, 1, "valid"),
]
EXTERN = torch.Generator().manual_seed(1)
X = torch.randn(2, 4, 7, 5, generator=EXTERN)
by_window = pytest.mark.parametrize("w", WINDOWS, ids=str)


def windows_of(x: torch.Tensor, w: Window) -> list[list[torch.Tensor]]:
    """For each output position the input positions (N, C, second axis) of its window, those inside only."""
    left, _ = w.margins(x.shape[2], ragged=True)
    starts = [i * w.stride - left for i in range(w.length(x.shape[2]))]
    at = [[s + k * w.dilation for k in range(w.size)] for s in starts]
    return [[x[:, :, i] for i in row if 0 <= i < x.shape[2]] for row in at]


@by_window
def test_convolution_over_two_axes(w: Window) -> None:
    second = Window(2, 1, 1, "valid")
    weights, bias = torch.randn(6, 2, w.size, 2, generator=EXTERN), torch.randn(6, generator=EXTERN)
    found = convolution(X, weights, bias, [w, second], ragged=[True, False], groups=2)
    left, _ = w.margins(7, ragged=True)
    assert found.shape == (2, 6, w.length(7), 4)
    for o in range(w.length(7)):
        wanted = bias[:, None].expand(2, 6, 4).clone()
        for k in range(w.size):
            i = o * w.stride + k * w.dilation - left
            for j in range(2) if 0 <= i < 7 else ():
                for group in range(2):
                    part = X[:, 2 * group : 2 * group + 2, i, j : j + 4]
                    rows = slice(3 * group, 3 * group + 3)
                    wanted[:, rows] += torch.einsum("ncf,oc->nof", part, weights[rows, :, k, j])
        torch.testing.assert_close(found[:, :, o], wanted)


@by_window
def test_pooling(w: Window) -> None:
    windows, ragged = [w, Window(1)], [True, False]
    largest = max_pool(X, windows, ragged=ragged)
    inside = average_pool(X, windows, ragged=ragged, count_margins=False)
    counted = average_pool(X, windows, ragged=ragged, count_margins=True)
    rows = windows_of(X, w)
    assert largest.shape == inside.shape == counted.shape == (2, 4, len(rows), 5)
    for o, row in enumerate(rows):
        values = torch.stack(row)
        torch.testing.assert_close(largest[:, :, o], values.amax(0))
        torch.testing.assert_close(inside[:, :, o], values.mean(0))
        torch.testing.assert_close(counted[:, :, o], values.sum(0) / w.size)


def test_what_stands_in_the_margins_of_a_maximum() -> None:
    x, w = -torch.ones(1, 1, 3), Window(3, padding="same")
    assert max_pool(x, [w], ragged=[True]).tolist() == [[[-1.0, -1.0, -1.0]]]
    assert max_pool(x, [w], ragged=[True], fill=0.0).tolist() == [[[0.0, -1.0, 0.0]]]
    assert max_pool(x, [w], ragged=[True], fill=-math.inf).isfinite().all()


@pytest.mark.parametrize("spread", [Spread(3, 2), Spread(2, 3), Spread(3, 2, same=True), Spread(3, 1, remove=1)])
def test_transposed_convolution(spread: Spread) -> None:
    x, weights = torch.randn(2, 3, 4, generator=EXTERN), torch.randn(3, 5, spread.size, generator=EXTERN)
    found = transposed_convolution(x, weights, [spread])
    full = torch.zeros(2, 5, 3 * spread.stride + max(spread.size, spread.stride))
    for i in range(4):
        for k in range(spread.size):
            full[:, :, i * spread.stride + k] += torch.einsum("nc,co->no", x[:, :, i], weights[:, :, k])
    start, size = spread.cut(4)
    torch.testing.assert_close(found, full[:, :, start : start + size])
