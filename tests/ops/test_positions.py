"""Sinusoids and relative positions, written out."""

import math

import pytest
import torch

from returnn_lite.ops.positions import relative_energies, relative_rows, sinusoids


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_sinusoids(base: float, size: int) -> None:
    found = sinusoids(torch.tensor([[0, 3], [10, -2]]), size, base)
    assert found.shape == (2, 2, size)
    rates = [base ** (-i / 2) for i in range(3)]
    for at, position in (((0, 1), 3), ((1, 0), 10), ((1, 1), -2)):
        wanted = [math.sin(position * r) for r in rates] + [math.cos(position * r) for r in rates] + [0.0] * (size - 6)
        torch.testing.assert_close(found[at], torch.tensor(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", [0, 1, 2, 9])
@pytest.mark.parametrize("first", [0, 3])
def test_relative_rows_and_energies(first: int, clip: int) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(2 * clip + 1, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    queries, keys = torch.arange(4) + first, 6
    rows = relative_rows(matrix, queries, keys)
    for i, q in enumerate(queries.tolist()):
        for k in range(keys):
            assert torch.equal(rows[i, k], matrix[max(-clip, min(clip, k - q)) + clip])
    energies = relative_energies(vectors, matrix, queries, keys)
    wanted = torch.einsum("bqf,qkf->bqk", vectors, rows)
    torch.testing.assert_close(energies, wanted)
    weights = torch.randn(energies.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(energies, (vectors, matrix), weights)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, (vectors, matrix), weights))
