"""The transducer loss against a sum over all alignments, one by one."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from returnn_lite.ops.transducer import transducer_loss

BLANK = 3
FRAMES, LABELS = torch.tensor([5, 3, 4]), torch.tensor([2, 3, 0])


def scores(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Log probabilities (3, 5, 4, 4) and labels (3, 3)."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, 4, 4, generator=generator, dtype=dtype) * 2
    return logits.log_softmax(-1), torch.tensor([[0, 2, 1], [1, 1, 2], [0, 0, 0]])


def alignments(frames: int, labels: int, *, take_frames: bool) -> list[tuple[bool, ...]]:
    """All orders of steps, True for a label; without `take_frames` the last step is the last frame's blank."""
    steps = frames if take_frames else frames + labels
    places = combinations(range(steps if take_frames else steps - 1), labels)
    return [tuple(i in said for i in range(steps)) for said in places]


def one_by_one(log_probs: Tensor, labels: Tensor, frames: int, count: int, *, take_frames: bool) -> Tensor:
    """Log of the sum over alignments of one sequence."""
    totals = []
    for steps in alignments(frames, count, take_frames=take_frames):
        t, u, total = 0, 0, log_probs.new_zeros(())
        for says in steps:
            total = total + log_probs[t, u, labels[u] if says else BLANK]
            t, u = t + int(take_frames or not says), u + int(says)
        totals.append(total)
    return torch.stack(totals).logsumexp(0)


@pytest.mark.parametrize("take_frames", [False, True])
def test_sum_over_all_alignments(take_frames: bool) -> None:
    log_probs, labels = scores()
    found = transducer_loss(log_probs, labels, FRAMES, LABELS, blank=BLANK, labels_take_frames=take_frames)
    wanted = [
        -one_by_one(log_probs[b], labels[b], int(FRAMES[b]), int(LABELS[b]), take_frames=take_frames) for b in range(3)
    ]
    torch.testing.assert_close(found, torch.stack(wanted))


@pytest.mark.parametrize("take_frames", [False, True])
def test_gradients(take_frames: bool) -> None:
    log_probs, labels = scores(torch.float64)

    def loss(x: Tensor) -> Tensor:
        return transducer_loss(x, labels, FRAMES, LABELS, blank=BLANK, labels_take_frames=take_frames)

    assert torch.autograd.gradcheck(loss, (log_probs.requires_grad_(),))
    (gradient,) = torch.autograd.grad(loss(log_probs).sum(), log_probs)
    used = torch.tensor([5 + 0, 3 + 0, 4 + 0]) if take_frames else FRAMES + LABELS  # steps of each alignment
    torch.testing.assert_close(-gradient.sum((1, 2, 3)), used.double())


def test_more_labels_than_frames() -> None:
    log_probs, labels = scores()
    few = torch.tensor([1, 2, 1])
    loss = transducer_loss(log_probs, labels, few, LABELS, blank=BLANK, labels_take_frames=True)
    assert loss.isinf().tolist() == [True, True, False]
    assert transducer_loss(log_probs, labels, few, LABELS, blank=BLANK).isfinite().all()


def test_long_sequences_stay_precise() -> None:
    generator = torch.Generator().manual_seed(1)
    log_probs = (torch.randn(1, 300, 101, 5, generator=generator) * 3).log_softmax(-1).requires_grad_()
    labels = torch.randint(0, 4, (1, 100), generator=generator)
    lengths = torch.tensor([300]), torch.tensor([100])
    single = transducer_loss(log_probs, labels, *lengths, blank=4)
    double = transducer_loss(log_probs.double(), labels, *lengths, blank=4)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
    (found,) = torch.autograd.grad(single.sum(), log_probs)
    (wanted,) = torch.autograd.grad(double.sum(), log_probs)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)
