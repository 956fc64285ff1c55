"""CTC against a list of all alignments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from returnn_lite.ops.ctc import collapse_repeated, ctc_best_path, ctc_durations, ctc_loss, ctc_posteriors
from returnn_lite.ops.ctc_decode import beam_search_decode, greedy_decode

LENGTHS = torch.tensor([5, 4, 3, 2, 5, 1, 0, 0])
TARGETS = torch.tensor([[1, 1, 2], [2, 0, 0], [0, 0, 0], [1, 2, 0], [0, 1, 2], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
TARGET_LENGTHS = torch.tensor([3, 1, 2, 2, 3, 0, 0, 1])
POSSIBLE = [True, True, True, True, True, True, True, False]
BATCH, FRAMES, CLASSES = 8, 5, 4
NATURAL = {"lengths": LENGTHS, "targets": TARGETS, "target_lengths": TARGET_LENGTHS}


def random_logits(seed: int = 1, frames: int = FRAMES, classes: int = CLASSES) -> Tensor:
    return torch.randn(BATCH, frames, classes, generator=torch.Generator().manual_seed(seed))


def labels_of(path: tuple[int, ...], blank: int, label_loop: bool) -> list[int]:
    merged = [x for i, x in enumerate(path) if not label_loop or i == 0 or x != path[i - 1]]
    return [x for x in merged if x != blank]


def paths(index: int, blank: int, label_loop: bool) -> Iterator[tuple[int, ...]]:
    labels = TARGETS[index, : TARGET_LENGTHS[index]].tolist()
    for path in itertools.product(range(CLASSES), repeat=int(LENGTHS[index])):
        if labels_of(path, blank, label_loop) == labels:
            yield path


def score(log_probs: Tensor, path: tuple[int, ...]) -> Tensor:
    return sum((log_probs[t, x] for t, x in enumerate(path)), torch.zeros(()))


def expected(log_probs: Tensor, index: int, label_loop: bool, viterbi: bool) -> tuple[float, Tensor, list[int]]:
    """Loss, posteriors and best path from the list of all paths."""
    found = list(paths(index, CLASSES - 1, label_loop))
    posteriors = torch.zeros(FRAMES, CLASSES)
    if not found:
        return math.inf, posteriors, [0] * FRAMES
    scores = torch.stack([score(log_probs[index], path) for path in found])
    best = found[int(scores.argmax())]
    total = scores.max() if viterbi else scores.logsumexp(0)
    for path, weight in [(best, 1.0)] if viterbi else zip(found, (scores - total).exp(), strict=True):
        for t, x in enumerate(path):
            posteriors[t, x] += weight
    return float(-total), posteriors, list(best) + [0] * (FRAMES - len(best))


def mask() -> Tensor:
    return (torch.arange(FRAMES) < LENGTHS[:, None])[:, :, None]


@pytest.mark.parametrize("viterbi", [False, True])
@pytest.mark.parametrize("label_loop", [True, False])
@pytest.mark.parametrize("softmax_grad", [True, False])
def test_loss_and_gradient(label_loop: bool, viterbi: bool, softmax_grad: bool) -> None:
    log_probs = random_logits().log_softmax(-1).requires_grad_()
    options = {"label_loop": label_loop, "viterbi": viterbi, "softmax_grad": softmax_grad}
    loss = ctc_loss(log_probs, **NATURAL, **options)
    with torch.no_grad():
        torch.testing.assert_close(ctc_loss(log_probs, **NATURAL, **options), loss.detach())
    reference = [expected(log_probs.detach(), i, label_loop, viterbi) for i in range(BATCH)]
    impossible = [math.isinf(value) for value, _, _ in reference]
    assert impossible[7] and not impossible[2]
    torch.testing.assert_close(loss.detach(), torch.tensor([value for value, _, _ in reference]))
    weights = torch.arange(1.0, BATCH + 1)
    loss.backward(weights)
    posteriors = torch.stack([p for _, p, _ in reference])
    gradient = (log_probs.detach().exp() if softmax_grad else 0) - posteriors
    torch.testing.assert_close(log_probs.grad, gradient * mask() * weights[:, None, None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("softmax_grad", [True, False])
def test_gradient_of_logits(softmax_grad: bool) -> None:
    """With the normalisation inside, both forms of the gradient are the true one where there is an alignment."""
    logits = random_logits().requires_grad_()
    loss = ctc_loss(logits, **NATURAL, normalized=False, softmax_grad=softmax_grad, impossible="zero")
    loss.sum().backward()
    posteriors, _ = ctc_posteriors(logits.log_softmax(-1), **NATURAL)
    wanted = (logits.detach().softmax(-1) - posteriors) * mask() * torch.tensor(POSSIBLE)[:, None, None]
    torch.testing.assert_close(logits.grad, wanted, atol=1e-5, rtol=1e-4)


def test_half_precision_scores() -> None:
    logits = random_logits().to(torch.bfloat16).requires_grad_()
    loss = ctc_loss(logits[:6], LENGTHS[:6], TARGETS[:6], TARGET_LENGTHS[:6], normalized=False)
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("label_loop", [True, False])
def test_posteriors(label_loop: bool) -> None:
    scores = random_logits()  # not normalised
    gamma, loss = ctc_posteriors(scores, **NATURAL, label_loop=label_loop)
    reference = [expected(scores, i, label_loop, False) for i in range(BATCH)]
    torch.testing.assert_close(gamma, torch.stack([p for _, p, _ in reference]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, torch.tensor([v if v < math.inf else 0.0 for v, _, _ in reference]))
    has_path = torch.tensor([v < math.inf for v, _, _ in reference])
    torch.testing.assert_close(gamma.sum(-1), (mask()[:, :, 0] & has_path[:, None]).float())


def test_posteriors_scale_and_floor() -> None:
    scores = random_logits().log_softmax(-1) * 3
    gamma, _ = ctc_posteriors(scores, **NATURAL, am_scale=0.3, min_prob=0.1)
    plain, _ = ctc_posteriors(scores.clamp(min=math.log(0.1)) * 0.3, **NATURAL)
    torch.testing.assert_close(gamma, plain)


@pytest.mark.parametrize("label_loop", [True, False])
def test_ctc_best_path(label_loop: bool) -> None:
    scores = random_logits(3)
    path, best = ctc_best_path(scores, **NATURAL, label_loop=label_loop)
    for i in range(BATCH):
        value, _, wanted = expected(scores, i, label_loop, True)
        assert path[i].tolist() == wanted
        assert best[i].item() == pytest.approx(-value, rel=1e-5)
    assert path.dtype == torch.int32


def test_durations_on_a_path() -> None:
    path, lengths = (
        torch.tensor([[3, 3, 1, 1, 3, 1, 2], [0, 0, 2, 3, 9, 9, 9], [3, 3, 1, 1, 1, 1, 1]]),
        torch.tensor([7, 4, 2]),
    )
    found = ctc_durations(path, lengths, blank=3)
    assert found.tolist() == [[2, 2, 1, 1, 0, 1, 0], [0, 2, 0, 1, 1, 0, 0], [2, 0, 0, 0, 0, 0, 0]]
    assert torch.equal(ctc_durations(path, lengths, blank=3, labels=3), found) and found.dtype == torch.int32
    assert torch.equal(ctc_durations(path.unsqueeze(1), lengths.unsqueeze(1), blank=3), found.unsqueeze(1))
    alone = ctc_durations(path[:1], lengths[:1], blank=3, label_loop=False)
    assert alone.tolist() == [[2, 1, 0, 1, 1, 1, 0, 1, 0]]


@pytest.mark.parametrize("blank", [0, 2, -1])
def test_blank_anywhere(blank: int) -> None:
    """Moving the blank to another index changes nothing."""
    logits = random_logits()
    order = [c for c in range(CLASSES) if c != CLASSES - 1]
    order.insert(blank % CLASSES, CLASSES - 1)
    targets = TARGETS + (TARGETS >= blank % CLASSES)
    moved = {**NATURAL, "targets": targets}
    for function in (ctc_loss, lambda *a, **k: ctc_best_path(*a, **k)[1], lambda *a, **k: ctc_posteriors(*a, **k)[1]):
        torch.testing.assert_close(function(logits[:, :, order], **moved, blank=blank), function(logits, **NATURAL))


# --- targets and decoding ---------------------------------------------------------------------------------------------


def test_collapse() -> None:
    labels, lengths = collapse_repeated(torch.tensor([[1, 1, 2, 2, 1], [3, 3, 3, 0, 0]]), torch.tensor([5, 2]))
    assert labels.tolist() == [[1, 2, 1], [3, 0, 0]]
    assert lengths.tolist() == [3, 1]


def test_greedy() -> None:
    best = torch.tensor([[1, 1, 3, 1, 0], [3, 3, 2, 2, 2], [3, 3, 3, 3, 3]])
    scores = torch.nn.functional.one_hot(best, 4).float()
    labels, lengths = greedy_decode(scores, torch.tensor([5, 3, 5]))
    assert labels.tolist() == [[1, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert lengths.tolist() == [3, 1, 0]
    labels, lengths = greedy_decode(scores, torch.tensor([5, 5, 5]), merge_repeated=False)
    assert labels.tolist() == [[1, 1, 1, 0], [2, 2, 2, 0], [0, 0, 0, 0]]
    assert greedy_decode(scores[2:], torch.tensor([5]))[0].shape == (1, 0)


def best_labels(log_probs: Tensor, blank: int) -> tuple[list[int], float]:
    total: dict[tuple[int, ...], list[Tensor]] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        total.setdefault(tuple(labels_of(path, blank, True)), []).append(score(log_probs, path))
    sums = {labels: torch.stack(scores).logsumexp(0).item() for labels, scores in total.items()}
    best = max(sums, key=lambda labels: sums[labels])
    return list(best), sums[best]


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best(seed: int) -> None:
    logits = 2 * random_logits(seed, frames=4)
    lengths = torch.tensor([4, 3, 2, 1, 4, 4, 0, 4])
    labels, label_lengths, scores = beam_search_decode(logits, lengths, beam_width=500)
    for i in range(BATCH):
        wanted, value = best_labels(logits[i, : lengths[i]].log_softmax(-1), CLASSES - 1) if lengths[i] else ([], 0.0)
        assert labels[i, : label_lengths[i]].tolist() == wanted
        assert scores[i].item() == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_beam_search_pruning_and_repetitions() -> None:
    logits = random_logits(7, frames=30, classes=6)
    lengths = torch.full([BATCH], 30)
    narrow = beam_search_decode(logits, lengths, beam_width=2)[2]
    wide = beam_search_decode(logits, lengths, beam_width=100)[2]
    assert (narrow <= wide + 1e-4).all() and (narrow < wide - 1e-3).any()
    sure = 50.0 * torch.nn.functional.one_hot(torch.tensor([[1, 3, 1, 0]]), 4).float()
    assert beam_search_decode(sure, torch.tensor([4]))[0].tolist() == [[1, 1, 0]]
    assert beam_search_decode(sure, torch.tensor([4]), merge_repeated=True)[0].tolist() == [[1, 0]]


@pytest.mark.parametrize("decode", [greedy_decode, beam_search_decode])
def test_decode_survives_nan(decode: Callable[..., tuple[Tensor, ...]]) -> None:
    assert decode(torch.full([1, 3, 4], math.nan), torch.tensor([3]))[1].shape == (1,)
