"""Edit distance against the textbook's table."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from returnn_lite.ops.edit_distance import edit_distance, first_row, next_row, optimal_completions


def table(a: list[int], b: list[int]) -> list[list[int]]:
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a):
        row = [i + 1]
        for j, y in enumerate(b):
            row.append(min(rows[-1][j + 1] + 1, row[j] + 1, rows[-1][j] + (x != y)))
        rows.append(row)
    return rows


def pad(seqs: list[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(seq) for seq in seqs)
    padded = [seq + [fill] * (longest - len(seq)) for seq in seqs]
    lengths = torch.tensor([len(seq) for seq in seqs], dtype=torch.int32)
    return torch.tensor(padded, dtype=torch.int32).reshape(len(seqs), longest), lengths


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("longest", [(9, 4), (3, 8), (6, 6), (0, 3), (0, 0)])
def test_random(seed: int, longest: tuple[int, int]) -> None:
    rng = random.Random(seed)
    left, right = ([[rng.randrange(3) for _ in range(rng.randint(0, n))] for _ in range(7)] for n in longest)
    a, a_lengths = pad(left, 0)
    b, b_lengths = pad(right, 1)
    found = edit_distance(a, a_lengths, b, b_lengths)
    assert found.dtype == torch.int32
    assert found.tolist() == [table(x, y)[-1][-1] for x, y in zip(left, right, strict=True)]


def test_rows() -> None:
    a, b = [1, 2, 0, 2], [2, 0, 1]
    wanted = table(a, b)
    row = first_row(torch.tensor([b]), torch.tensor([3]))
    assert row.dtype == torch.int32 and row.tolist() == [wanted[0]]
    for label, expected in zip(a, wanted[1:], strict=True):
        row = next_row(row, torch.tensor([label]), torch.tensor([b]), torch.tensor([3]))
        assert row.tolist() == [expected]


def test_rows_of_a_shorter_target_and_blanks() -> None:
    target, lengths = torch.tensor([[2, 0, 7]]), torch.tensor([2])
    row = first_row(target, lengths)
    assert row.tolist() == [[0, 1, 2, 2]]
    row = next_row(row, torch.tensor([2]), target, lengths, blank=5)
    assert row.tolist() == [[1, 0, 1, 1]]
    assert torch.equal(next_row(row, torch.tensor([5]), target, lengths, blank=5), row)


def test_completions_against_every_continuation() -> None:
    prefix, target, classes = [1, 0], [0, 2, 1], 4
    row = torch.tensor([table(prefix, target)[-1]], dtype=torch.int32)
    found = optimal_completions(row, torch.tensor([target]), torch.tensor([3]), classes)
    rests = [list(rest) for n in range(4) for rest in itertools.product(range(3), repeat=n)]
    wanted = [min(table([*prefix, c, *rest], target)[-1][-1] for rest in rests) for c in range(classes)]
    assert found.tolist() == [wanted]
    found = optimal_completions(row, torch.tensor([target]), torch.tensor([3]), classes, blank=3)
    assert found[0, 3] == min(wanted)
