"""Attention in its fused and its written-out form, against loops."""

import math
from typing import Any

import pytest
import torch

from returnn_lite.ops import attention as ops

GENERATOR = torch.Generator().manual_seed(1)
Q, K, V = (torch.randn(2, 3, n, d, generator=GENERATOR) for n, d in ((4, 5), (6, 5), (6, 7)))


def plain(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """One query after the other, by (2, 3, Q, K) bool."""
    out = torch.zeros(2, 3, queries.shape[2], values.shape[3])
    for b, h, q in torch.cartesian_prod(*(torch.arange(n) for n in queries.shape[:3])).tolist():
        used = seen[b, h, q].nonzero().flatten()
        weights = (keys[b, h, used] @ queries[b, h, q]).softmax(0)
        out[b, h, q] = weights @ values[b, h, used]
    return out


LENGTHS = torch.tensor([6, 4])
MASK = (torch.arange(6) < LENGTHS[:, None])[:, None, None, :]


@pytest.mark.parametrize("options", [{}, {"lowest": -1e30}, {"bias": torch.zeros(4, 6)}])
@pytest.mark.parametrize("mask", [None, MASK])
def test_masked(mask: torch.Tensor | None, options: dict[str, Any]) -> None:
    seen = torch.ones(2, 3, 4, 6, dtype=torch.bool) if mask is None else mask.expand(2, 3, 4, 6)
    torch.testing.assert_close(ops.attention(Q, K, V, mask=mask, **options), plain(Q, K, V, seen))


@pytest.mark.parametrize("options", [{}, {"lowest": -1e30}])
@pytest.mark.parametrize("queries", [6, 4, 1])
def test_causal_queries_are_the_last_frames(queries: int, options: dict[str, Any]) -> None:
    q = torch.randn(2, 3, queries, 5, generator=GENERATOR)
    seen = torch.arange(6) <= torch.arange(6 - queries, 6)[:, None]
    assert torch.equal(ops.causal_mask(queries, 6, q.device), seen)
    torch.testing.assert_close(
        ops.attention(q, K, V, causal=True, **options), plain(q, K, V, seen.expand(2, 3, queries, 6))
    )


def test_a_bias_is_added_to_the_energies() -> None:
    bias = torch.randn(4, 6, generator=GENERATOR)
    weights = (torch.einsum("bhqd,bhkd->bhqk", Q, K) + bias).softmax(-1)
    torch.testing.assert_close(ops.attention(Q, K, V, bias=bias), torch.einsum("bhqk,bhkv->bhqv", weights, V))


def test_dropout_of_the_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, ones = torch.zeros(2, 3, 1000, 5), torch.ones(2, 3, 1000, 1)
    found = ops.attention(Q, keys, ones, dropout=0.25, generator=generator)
    torch.testing.assert_close(found, torch.ones_like(found), atol=0.1, rtol=0)
    assert not torch.equal(found, torch.ones_like(found))


def test_masked_softmax() -> None:
    energies = torch.randn(2, 6, generator=GENERATOR)
    valid = torch.arange(6) < LENGTHS[:, None]
    weights = ops.masked_softmax(energies, valid, scale=2.0)
    assert not weights[1, 4:].any()
    torch.testing.assert_close(weights[1, :4], (2 * energies[1, :4]).softmax(0))
    torch.testing.assert_close(ops.masked_log_softmax(energies, valid, scale=2.0).exp(), weights)
    torch.testing.assert_close(ops.masked_softmax(energies, None), energies.softmax(-1))


def test_energies_and_sums_of_single_queries() -> None:
    context, query, v = K[:, 0], Q[:, 0, 0], torch.randn(5, generator=GENERATOR)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(6)).tolist():
        torch.testing.assert_close(ops.dot_energies(context, query)[b, t], context[b, t] @ query[b])
        wanted = (context[b, t] + query[b]).tanh() @ v
        torch.testing.assert_close(ops.additive_energies(context, query.unsqueeze(1), v)[b, t], wanted)
    weights = torch.rand(2, 6, generator=GENERATOR)
    torch.testing.assert_close(ops.weighted_sum(weights, context), (weights.unsqueeze(-1) * context).sum(1))


def test_gauss_window() -> None:
    weights, positions = ops.gauss_window(torch.tensor([2.2, 0.0]), 3, 0.5)
    assert positions.tolist() == [[1, 2, 3], [-1, 0, 1]]
    density = math.exp(-0.5 * (0.2 / 0.5) ** 2) / (0.5 * math.sqrt(2 * math.pi))
    assert weights[0, 1].item() == pytest.approx(density, rel=1e-5)
    frames = torch.arange(8.0).reshape(2, 4, 1)
    assert ops.frames_at(frames, positions).flatten(1).tolist() == [[1, 2, 3], [4, 4, 5]]
    assert ops.frames_at(frames, positions, torch.tensor([3, 1])).flatten(1).tolist() == [[1, 2, 2], [4, 4, 4]]
    assert ops.frames_at(frames, positions.expand(5, 2, 3)).shape == (5, 2, 3, 1)
