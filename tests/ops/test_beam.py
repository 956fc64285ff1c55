"""Picking of candidates: pure functions on scores."""

import pytest
import torch

from returnn_lite.ops import beam

INF = float("inf")


def test_best_first_and_lower_index_at_ties():
    scores = torch.tensor([[[1.0, 3.0, 2.0], [3.0, 0.0, 3.0]]])
    picked = beam.pick(scores, 4)
    assert picked.scores.tolist() == [[3.0, 3.0, 3.0, 2.0]]
    assert picked.source.tolist() == [[0, 1, 1, 0]]
    assert picked.labels.tolist() == [[1, 0, 2, 2]]
    assert beam.pick(scores, 1).source.tolist() == [[0]]


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_as_a_stable_sort(size):
    scores = torch.randint(0, 4, (4, 3, 5), generator=torch.Generator().manual_seed(1)).float()
    picked = beam.pick(scores, size)
    for b in range(4):
        flat = scores[b].flatten().tolist()
        order = sorted(range(15), key=lambda i, flat=flat: -flat[i])[:size]
        assert picked.source[b].tolist() == [i // 5 for i in order]
        assert picked.labels[b].tolist() == [i % 5 for i in order]


def test_too_few_candidates_are_filled_up():
    picked = beam.pick(torch.tensor([[[1.0, 2.0]]]), 4)
    assert picked.scores.tolist() == [[2.0, 1.0, -INF, -INF]]
    assert picked.labels.tolist() == [[1, 0, 0, 0]] and picked.source.tolist() == [[0, 0, 0, 0]]


def test_every_hypothesis_keeps_its_successors():
    scores = torch.tensor([[[1.0, 3.0, 2.0], [30.0, 10.0, 20.0]]])
    picked = beam.pick(scores, 4, keep_beams=True)
    assert picked.source.tolist() == [[0, 0, 1, 1]]
    assert picked.labels.tolist() == [[1, 2, 0, 2]]


def test_ended_hypotheses_go_on_with_label_0_at_no_cost():
    log_probs, base = torch.zeros(1, 2, 3) - 1.0, torch.tensor([[-4.0, -6.0]])
    ended = torch.tensor([[True, False]])
    new, old = beam.let_end(log_probs, base, ended, 2, None)
    assert torch.equal(new[0, 0], torch.tensor([0.0, beam.MINUS_HUGE, beam.MINUS_HUGE]))
    assert torch.equal(new[0, 1], log_probs[0, 1])
    assert torch.equal(old, base)
    _, old = beam.let_end(log_probs, base, ended, 2, 1.0)
    assert old.tolist() == [[-6.0, -6.0]]  # -4 * 3 / 2
    assert beam.let_end(log_probs, base, ended, 0, 1.0)[1] is base
    assert beam.let_end(log_probs, base, None, 2, 1.0) == (log_probs, base)


def test_scales_and_noise():
    found = beam.combine(
        torch.tensor([[[1.0, 2.0]]]), torch.tensor([[10.0]]), prob_scale=3.0, base_scale=0.5, noise=torch.ones(1, 1, 2)
    )
    assert found.tolist() == [[[9.0, 12.0]]]


def test_the_target_is_kept_last():
    scores = torch.tensor([[[5.0, 1.0, 0.0], [4.0, 3.0, 2.0]]])
    gold = beam.gold_of(scores, torch.tensor([7]), torch.tensor([1]))  # clipped to the last class
    assert gold.label.tolist() == [2] and gold.scores.tolist() == [2.0]
    kept = beam.put_gold(beam.pick(scores, 3), gold)
    assert kept.scores.tolist() == [[5.0, 4.0, 2.0]] and kept.labels.tolist() == [[0, 0, 2]]
    gold = beam.gold_of(scores, torch.tensor([0]), torch.tensor([1]))
    assert beam.put_gold(beam.pick(scores, 3), gold).scores.tolist() == [[5.0, 4.0, 4.0]]
    once = beam.put_gold(beam.pick(beam.without_gold(scores, gold), 3), gold)
    assert once.scores.tolist() == [[5.0, 3.0, 4.0]]


def test_combinations_run_with_the_last_one_fastest():
    first, second = torch.tensor([[[1.0, 3.0, 2.0]]]), torch.tensor([[[10.0, 20.0]]])
    found = beam.combinations([first, second], [2, 5])
    assert found.scores.tolist() == [[[23.0, 13.0, 22.0, 12.0]]]
    labels = found.split(beam.pick(found.scores, 3))
    assert [x.tolist() for x in labels] == [[[1, 2, 1]], [[1, 1, 0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40,), (3, 40), (2, 3, 40)])
def test_keys_order_as_a_stable_sort(dtype, shape):
    values = torch.randint(-6, 6, shape, generator=torch.Generator().manual_seed(2)).to(dtype) / 3
    values[..., 5], values[..., 7], values[..., 9] = -INF, INF, -1e-30
    values[..., 11], values[..., 13] = 0.0, -0.0
    expected = values.sort(dim=-1, descending=True, stable=True)
    for count in (1, 6, 40):
        best, index = beam.top_by_key(values, count)
        assert torch.equal(index, expected.indices[..., :count])
        assert torch.equal(best, expected.values[..., :count])


def test_noise_makes_the_best_a_sample():
    probs = torch.tensor([0.5, 0.3, 0.2])
    noise = beam.gumbel_noise(torch.zeros(20000, 3), torch.Generator().manual_seed(1))
    best = (probs.log() + noise).argmax(-1)
    torch.testing.assert_close(torch.bincount(best) / 20000, probs, atol=0.02, rtol=0)


def test_scores_stay_once_all_have_ended():
    log_probs, base = torch.zeros(2, 2, 3), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ended = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(beam.let_end(log_probs, base, ended, 2, 1.0, goes_on=True)[1], base)
    ended[0, 0] = False
    some, every = (beam.let_end(log_probs, base, ended, 2, 1.0, goes_on=on)[1] for on in (True, False))
    assert torch.equal(some, every) and not torch.equal(some, base)
