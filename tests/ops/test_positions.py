"""Sinusoids and relative positions, written out."""

import math

import pytest
import torch

from returnn_lite.ops.positions import frequencies, relative_energies, relative_rows, relative_shift, rotated, sinusoids


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_sinusoids(base: float, size: int) -> None:
    found = sinusoids(torch.tensor([[0, 3], [10, -2]]), size, base)
    assert found.shape == (2, 2, size)
    rates = [base ** (-i / 2) for i in range(3)]
    for at, position in (((0, 1), 3), ((1, 0), 10), ((1, 1), -2)):
        wanted = [math.sin(position * r) for r in rates] + [math.cos(position * r) for r in rates] + [0.0] * (size - 6)
        torch.testing.assert_close(found[at], torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def test_frequencies_without_the_last() -> None:
    torch.testing.assert_close(frequencies(6, 64.0, last_included=False), torch.tensor([1.0, 1 / 4, 1 / 16]))
    torch.testing.assert_close(frequencies(6, 64.0), torch.tensor([1.0, 1 / 8, 1 / 64]))
    found = sinusoids(torch.tensor(2), 4, 16.0, last_included=False)
    torch.testing.assert_close(found, torch.tensor([math.sin(2), math.sin(0.5), math.cos(2), math.cos(0.5)]))


def test_rotation_of_pairs() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    found = rotated(x, sinusoids(torch.arange(3), 4, last_included=False))
    for p in range(3):
        for m, rate in enumerate((1.0, 0.01)):
            pair = torch.view_as_complex(x[p, 2 * m : 2 * m + 2].contiguous()) * complex(
                math.cos(p * rate), math.sin(p * rate)
            )
            torch.testing.assert_close(found[p, 2 * m : 2 * m + 2], torch.view_as_real(pair))


@pytest.mark.parametrize("keys", [1, 3, 6])
@pytest.mark.parametrize("queries", [1, 2, 5])
def test_from_distances_to_keys(queries: int, keys: int) -> None:
    x = torch.arange(2.0 * queries * (queries + keys - 1)).reshape(2, queries, -1)
    found = relative_shift(x)
    assert found.shape == (2, queries, keys)
    for q in range(queries):
        assert torch.equal(found[:, q], x[:, q, queries - 1 - q : queries - 1 - q + keys])


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 1), (2, 2), (9, 9), (2, 0), (0, 3), (3, 1)])
@pytest.mark.parametrize("first", [0, 3])
def test_relative_rows_and_energies(first: int, left: int, right: int) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(left + right + 1, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    queries, keys = torch.arange(4) + first, 6
    side = None if left == right else right
    rows = relative_rows(matrix, queries, keys, side)
    for i, q in enumerate(queries.tolist()):
        for k in range(keys):
            assert torch.equal(rows[i, k], matrix[max(-left, min(right, k - q)) + left])
    energies = relative_energies(vectors, matrix, queries, keys, side)
    wanted = torch.einsum("bqf,qkf->bqk", vectors, rows)
    torch.testing.assert_close(energies, wanted)
    weights = torch.randn(energies.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(energies, (vectors, matrix), weights)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, (vectors, matrix), weights))
