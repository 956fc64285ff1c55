"""Masked reductions and normalisation against numpy on the valid entries."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from returnn_lite.ops.norms import normalize, normalize_by
from returnn_lite.ops.reductions import MODES, count, moments, reduce

LENGTHS = [4, 2, 1]
VALID = (torch.arange(4) < torch.tensor(LENGTHS)[:, None])[:, :, None]
X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
PLAIN: dict[str, Callable[..., Any]] = {
    "max": np.max, "min": np.min, "sum": np.sum, "mean": np.mean, "argmax": np.argmax,
    "argmin": np.argmin, "logsumexp": lambda x, axis: np.log(np.exp(x).sum(axis)),
    "any": np.any, "all": np.all,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_over_the_valid_frames(mode: str) -> None:
    x = X > 0 if mode in ("any", "all") else X
    found, kept = reduce(x, mode, (1,), VALID), reduce(x, mode, (1,), VALID, keepdim=True)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(found[b], PLAIN[mode](x[b, :n].numpy(), axis=0), rtol=1e-5)
    assert kept.shape == (3, 1, 5) and torch.equal(kept.squeeze(1), found)
    np.testing.assert_allclose(reduce(x, mode, (1,)), PLAIN[mode](x.numpy(), axis=1), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_over_no_frame(mode: str) -> None:
    x = torch.zeros(3, 0, 5, dtype=torch.bool if mode in ("any", "all") else torch.float32)
    lowest, largest = torch.finfo(torch.float32).min, torch.finfo(torch.float32).max
    expected = {"max": lowest, "logsumexp": lowest, "min": largest, "all": 1.0}.get(mode, 0.0)
    for valid in (None, torch.zeros(3, 0, 1, dtype=torch.bool)):
        found = reduce(x, mode, (1,), valid)
        assert found.shape == (3, 5) and (found.to(torch.float32) == expected).all()


def test_over_several_axes() -> None:
    for axes in ((0, 1), (0, 1, 2), (1, 2)):
        total, number = reduce(X, "sum", axes, VALID), count(X, axes, VALID)
        torch.testing.assert_close(total, (X * VALID).sum(axes))
        assert torch.equal(number, VALID.expand(X.shape).sum(axes) if 2 in axes else number)
        torch.testing.assert_close(reduce(X, "mean", axes, VALID), total / number)
    assert count(X, (0, 1), VALID).item() == 7


def test_what_nothing_gives() -> None:
    nothing = torch.zeros(3, 4, 1, dtype=torch.bool)
    assert not reduce(X, "mean", (1,), nothing).any()
    assert (reduce(X, "max", (1,), nothing) == torch.finfo(torch.float32).min).all()
    assert reduce(torch.tensor([[1, 2, 4]]), "mean", (1,)).tolist() == [2]


@pytest.mark.parametrize("valid", [None, VALID])
def test_moments(valid: torch.Tensor | None) -> None:
    x = X.clone() if valid is None else X.masked_fill(~valid, float("nan"))
    x.requires_grad_()
    frames = X.flatten(0, 1).numpy() if valid is None else X[valid.squeeze(-1)].numpy()
    mean, variance = moments(x, (0, 1), valid)
    assert mean.shape == variance.shape == (1, 1, 5)
    np.testing.assert_allclose(mean.detach().flatten(), frames.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance.detach().flatten(), frames.var(0), rtol=1e-4)
    variance.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    if valid is not None:
        assert not x.grad[1, 2:].any()


def test_normalisation() -> None:
    y = normalize(X, (0, 1), VALID, epsilon=0.0)
    mean, variance = moments(y, (0, 1), VALID)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
    torch.testing.assert_close(variance, torch.ones_like(variance))
    mean, variance = (m.flatten() for m in moments(X, (0, 1), VALID))
    scale, shift = torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    found = normalize_by(X, mean, variance, -1, epsilon=0.0, scale=scale, shift=shift)
    torch.testing.assert_close(found, y * scale + shift)
    turned = normalize_by(X.transpose(1, 2), mean, variance, 1, epsilon=0.0)
    torch.testing.assert_close(turned.transpose(1, 2), y)
