"""Random stretches: where they may be, how many, how wide."""

import torch

from returnn_lite.ops.specaugment import random_stretches

GENERATOR = torch.Generator().manual_seed(1)


def stretches(row: list[bool]) -> list[int]:
    """The widths of the runs of True."""
    text = "".join("x" if hidden else " " for hidden in row)
    return [len(run) for run in text.split()]


def test_single_positions_are_as_many_as_drawn() -> None:
    lengths = torch.tensor([50, 20, 2, 0]).repeat(50)
    found = random_stretches(lengths, 50, fewest=1, most=4, max_width=1, generator=GENERATOR)
    assert found.shape == (200, 50) and found.dtype == torch.bool
    counts = found.sum(1).reshape(50, 4)
    assert set(counts[:, 0].tolist()) == set(counts[:, 1].tolist()) == {1, 2, 3, 4}
    assert set(counts[:, 2].tolist()) == {1, 2} and not counts[:, 3].any()
    assert not found[lengths == 20][:, 20:].any()


def test_widths() -> None:
    lengths = torch.full((500,), 30)
    found = random_stretches(lengths, 30, fewest=1, most=1, max_width=4, generator=GENERATOR)
    widths = [stretches(row) for row in found.tolist()]
    assert all(len(w) == 1 for w in widths) and {w[0] for w in widths} == {1, 2, 3, 4}
    assert found.any(0).all()  # each position may be hidden, the first and the last too
    assert abs(sum(w[0] for w in widths) / 500 - 2.45) < 0.2  # 2.5, but for those that are cut at the end


def test_numbers_per_sequence() -> None:
    fewest, most = torch.tensor([0, 2, 30]), torch.tensor([0, 2, 40])
    found = random_stretches(torch.full((3,), 9), 9, fewest=fewest, most=most, max_width=1, generator=GENERATOR)
    assert found.sum(1).tolist() == [0, 2, 9]
