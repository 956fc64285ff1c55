"""The batched prefix beam search, against sums over all alignments."""

import itertools

import pytest
import torch

from returnn_lite.ops.ctc_beam import ctc_beam_search


def every_sequence(log_probs, blank, transitions=None, bonus=0.0):
    """{labels: log sum of their alignments, with transitions and bonus} of one sequence (T, V), by enumeration."""
    frames, classes = log_probs.shape
    found = {}
    for path in itertools.product(range(classes), repeat=frames):
        labels = tuple(c for i, c in enumerate(path) if c != blank and (i == 0 or path[i - 1] != c))
        score = sum(float(log_probs[t, c]) for t, c in enumerate(path))
        found.setdefault(labels, []).append(score)
    scores = {}
    for labels, parts in found.items():
        extra = bonus * len(labels)
        if transitions is not None:
            extra += sum(float(transitions[before + 1, label]) for before, label in zip((-1, *labels), labels))  # noqa: B905
        scores[labels] = float(torch.tensor(parts, dtype=torch.float64).logsumexp(0)) + extra
    return scores


@pytest.mark.parametrize("blank", [-1, 0, 1])
@pytest.mark.parametrize("with_lm", [False, True])
def test_a_wide_beam_finds_the_best_of_all(blank, with_lm):
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        log_probs = (2 * torch.randn(2, 5, 4, generator=generator)).log_softmax(-1)
        transitions = torch.randn(5, 4, generator=generator) if with_lm else None
        bonus = 0.7 if with_lm else 0.0
        lengths = torch.tensor([5, 3])
        found = ctc_beam_search(
            log_probs, lengths, blank=blank, beam_size=300, length_bonus=bonus, transitions=transitions
        )
        for b, length in enumerate(lengths.tolist()):
            wanted = every_sequence(log_probs[b, :length], blank % 4, transitions, bonus)
            ranked = sorted(wanted.items(), key=lambda item: -item[1])
            got = [tuple(row[:n].tolist()) for row, n in zip(found.labels[b], found.lengths[b], strict=True)]
            scores = found.scores[b]
            assert [labels for labels, _ in ranked] == got[: len(ranked)]
            torch.testing.assert_close(
                scores[: len(ranked)], torch.tensor([s for _, s in ranked]), rtol=1e-4, atol=1e-4
            )
            assert (scores[len(ranked) :] == -torch.inf).all()


def test_a_narrow_beam_that_leaves_pairs_out_is_that_which_does_not(monkeypatch):
    """The pairs that are not looked at are never among the best."""
    generator = torch.Generator().manual_seed(3)
    from returnn_lite.ops import ctc_beam

    of = ctc_beam._Pairs.of
    for size, classes in ((2, 9), (3, 4), (5, 30), (8, 12)):
        log_probs = (3 * torch.randn(4, 20, classes, generator=generator)).log_softmax(-1)
        lengths = torch.tensor([20, 13, 1, 0])
        monkeypatch.setattr(ctc_beam._Pairs, "of", of)
        some = ctc_beam_search(log_probs, lengths, beam_size=size)
        monkeypatch.setattr(
            ctc_beam._Pairs, "of", lambda size, number, device, every: of(size, number, device, every=True)
        )
        every = ctc_beam_search(log_probs, lengths, beam_size=size)
        torch.testing.assert_close(some.scores, every.scores)
        assert some.labels.equal(every.labels) and some.lengths.equal(every.lengths)
        assert some.lengths[3, 0] == 0 and some.scores[3, 0] == 0


def test_no_frames():
    found = ctc_beam_search(torch.zeros(2, 0, 3), torch.zeros(2), beam_size=4)
    assert found.labels.shape == (2, 4, 0) and found.lengths.tolist() == [[0] * 4] * 2
