"""The largest elements of blocks: torch's pooling, its gradient and its memory layouts."""

import math

import pytest
import torch
import torch.nn.functional as F

from returnn_lite.ops.block_max import block_max
from returnn_lite.ops.convolution import max_pool
from returnn_lite.ops.windows import Window


def pooled(x, axis, size):
    """By torch, which wants the axis last."""
    moved = F.pad(x.movedim(axis, -1).flatten(0, -2), (0, -x.shape[axis] % size), value=-math.inf)
    rest = [n for i, n in enumerate(x.shape) if i != axis]
    return F.max_pool1d(moved, size).unflatten(0, rest).movedim(-1, axis)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_value_and_gradient_are_those_of_pooling(axis, size):
    """With many equal elements: the first one of a block gets its gradient."""
    x = torch.randint(4, (7, 4, 8), generator=torch.Generator().manual_seed(1)).double()
    grads = []
    for function in (block_max, pooled):
        own = x.clone().requires_grad_()
        out = function(own, axis, size)
        (out * torch.arange(out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
        grads.append((out.detach(), own.grad))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])
    assert torch.equal(block_max(x, axis, size), grads[0][0])


def test_gradients_of_gradients():
    x = torch.randn(3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: block_max(v, 1, 3) ** 2, x)
    assert torch.autograd.gradgradcheck(lambda v: block_max(v, 1, 3) ** 2, x)


def test_nan_stays():
    x = torch.tensor([[1.0, math.nan], [math.nan, 2.0], [3.0, 4.0]])
    assert block_max(x, 0, 2).isnan().tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("window", [Window(2, 2), Window(3, 3, padding="same"), Window(2, 2, padding="same")])
def test_pooling_uses_blocks(window, monkeypatch):
    """Of every length; positions that no window covers are left out."""
    used = []
    monkeypatch.setattr("returnn_lite.ops.convolution.block_max", lambda *a: used.append(a) or block_max(*a))
    for count in range(1, 8):
        x = torch.randn(2, 3, count, generator=torch.Generator().manual_seed(count))
        found = max_pool(x, [window], ragged=[True])
        left, right = window.margins(count, True)
        padded = F.pad(x, (left, right), value=-math.inf)
        steps = (padded.shape[2] - window.size) // window.stride + 1
        assert found.shape[2] == max(steps, 0)
        if steps > 0:
            assert torch.equal(found, F.max_pool1d(padded, window.size, window.stride))
    assert used
