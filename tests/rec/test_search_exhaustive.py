"""Beam search against plain Python.

A beam that holds all hypotheses against the list of all label sequences; narrow beams against a search over lists.
"""

import pytest
import torch

from tests.nets import valid_part
from tests.rec.decoders import ATTENTION, PLAIN, Steps, V, decoder, make, run
from tests.rec.nets import LENGTHS

BATCH = 3
LONGEST = 3
ALL = 1 + 2 + 4 + 8  # hypotheses with at most 3 labels: ended after 1, 2, 3 steps, and not ended
UNITS = {"plain": PLAIN, "attention": ATTENTION}
HUGE = -1e20  # scores below are no hypotheses


def all_sequences(steps):
    """(labels, total log probability) of all label sequences up to their end, or to the bound."""
    found = []
    waiting = [((), 0.0, steps.start())]
    while waiting:
        labels, total, state = waiting.pop()
        if len(labels) == LONGEST or (labels and labels[-1] == 0):
            found.append((labels, total))
            continue
        log_p, state = steps.step(labels[-1] if labels else 0, state)
        waiting += [((*labels, y), total + log_p[y], state) for y in range(V)]
    return found


def hypotheses(x):
    """Per sequence the list of (labels up to the length, score), best first."""
    x = x.batch_major()
    lengths = x.length(x.spec.dims[1]).values.tolist()
    size = x.beam.size
    rows = [tuple(row[:n].tolist()) for row, n in zip(x.data, lengths, strict=True)]
    scores = x.beam.scores.flatten().tolist()
    flat = list(zip(rows, scores, strict=True))
    return [flat[b * size : (b + 1) * size] for b in range(BATCH)]


def without_end(labels):
    return labels[:-1] if labels and labels[-1] == 0 else labels


# --- a beam that holds everything ----------------------------------------------------------------------------------


OPTIONS = [
    {},
    {"length_normalization": False},
    {"length_normalization_exponent": 0.5},
    {"prob_scale": 0.7},
    {"input_type": "logits"},
]


def expected_hypotheses(steps, include_eos, *, length_normalization=True, length_normalization_exponent=1.0,
                        prob_scale=1.0, input_type="prob"):  # fmt: skip
    """All hypotheses by enumeration, best first. The longest have not ended, so the norm is their length (+ 1)."""
    found = []
    for labels, total in all_sequences(steps):
        score = prob_scale * total
        if length_normalization:
            kept = score * (LONGEST / len(labels)) ** length_normalization_exponent
            score = kept / (LONGEST + (not include_eos))
        found.append((labels if include_eos else without_end(labels), score))
    return sorted(found, key=lambda h: -h[1])


@pytest.mark.parametrize("include_eos", [False, True])
@pytest.mark.parametrize("choice", OPTIONS, ids=lambda c: next(iter(c), "normalised"))
@pytest.mark.parametrize("unit", UNITS)
def test_a_wide_beam_finds_all_label_sequences(unit, choice, include_eos):
    layers = dict(UNITS[unit])
    if choice.get("input_type") == "logits":
        layers["prob"] = {"class": "linear", "n_out": V, "activation": None, "from": layers["prob"]["from"]}
    net = make(decoder(layers, beam=ALL + 1, include_eos=include_eos, **choice))
    out = run(net)
    for b, found in enumerate(hypotheses(out["output"])):
        expected = expected_hypotheses(Steps(net, out, b), include_eos, **choice)
        real = [h for h in found if h[1] > HUGE]
        assert [h[0] for h in real] == [h[0] for h in expected] and len(real) == ALL
        torch.testing.assert_close([h[1] for h in real], [h[1] for h in expected], rtol=1e-4, atol=1e-5)


# --- narrow beams --------------------------------------------------------------------------------------------------


def searched(all_steps, beam, longest):
    """Length-normalised beam search over lists: per sequence [(labels with the end, score, state)]."""
    beams = [[((), 0.0, steps.start())] for steps in all_steps]
    ended = lambda labels: 0 in labels  # noqa: E731
    for tick in range(longest):
        for b, steps in enumerate(all_steps):
            found = []
            for labels, score, state in beams[b]:
                if ended(labels):
                    found.append(((*labels, 0), score * (tick + 1) / tick, state))
                    continue
                log_p, new = steps.step(labels[-1] if labels else 0, state)
                found += [((*labels, y), score + log_p[y], new) for y in range(V)]
            beams[b] = sorted(found, key=lambda h: -h[1])[:beam]
        if all(ended(labels) for hyps in beams for labels, _, _ in hyps):
            break
    return beams


@pytest.mark.parametrize("longest", [1, 4, 7])
@pytest.mark.parametrize("beam", [1, 2, 3])
@pytest.mark.parametrize("unit", UNITS)
def test_a_narrow_beam_keeps_the_best(unit, beam, longest):
    net = make(decoder(UNITS[unit], beam=beam, max_seq_len=longest))
    out = run(net)
    beams = searched([Steps(net, out, b) for b in range(BATCH)], beam, longest)
    cut = lambda labels: labels[: labels.index(0)] if 0 in labels else labels  # noqa: E731
    norm = 1 + max(len(cut(labels)) for hyps in beams for labels, _, _ in hyps)
    for hyps, found in zip(beams, hypotheses(out["output"]), strict=True):
        assert [h[0] for h in found] == [cut(labels) for labels, _, _ in hyps]
        torch.testing.assert_close([h[1] for h in found], [score / norm for _, score, _ in hyps], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", UNITS)
def test_a_beam_of_1_is_greedy(unit):
    net = make(decoder(UNITS[unit], beam=1, max_seq_len=6))
    out = run(net)
    for b, ((labels, _),) in enumerate(hypotheses(out["output"])):
        steps = Steps(net, out, b)
        label, state, expected = 0, steps.start(), []
        while len(expected) < 6:
            log_p, state = steps.step(label, state)
            label = max(range(V), key=lambda y: log_p[y])
            if label == 0:
                break
            expected.append(label)
        assert labels == tuple(expected)


# --- lengths, results ----------------------------------------------------------------------------------------------


def test_the_bound_may_be_an_expression():
    net = make(decoder(PLAIN, beam=2, max_seq_len="max_len_from('base:encoder') * 2"))
    x = run(net)["output"]
    assert x.data.shape[0] <= 2 * max(LENGTHS["data"])
    never = {**PLAIN, "end": {"class": "compare", "from": "output", "value": -1}}
    x = run(make(decoder(never, beam=2, max_seq_len="max_len_from('base:encoder') * 2")))["output"]
    assert x.data.shape[0] == 8 and set(x.length(x.spec.dims[0]).values.tolist()) == {8}


def test_ended_at_once_gives_empty_sequences():
    always = {**PLAIN, "end": {"class": "compare", "kind": "greater_equal", "from": "output", "value": 0}}
    x = run(make(decoder(always, beam=2)))["output"]
    assert x.data.shape[0] == 0 and set(x.length(x.spec.dims[0]).values.tolist()) == {0}
    x = run(make(decoder(always, beam=2, include_eos=True)))["output"]
    assert x.data.shape[0] == 1 and set(x.length(x.spec.dims[0]).values.tolist()) == {1}


@pytest.mark.parametrize("normalise", [False, True])
def test_decide_takes_the_best(normalise):
    layers = decoder(ATTENTION, beam=4, max_seq_len=5)
    layers["decision"]["length_normalization"] = normalise
    out = run(make(layers))
    decided = out["decision"]
    assert decided.spec.batch == 0 and decided.data.shape[0] == BATCH
    lengths = decided.length(decided.spec.dims[1]).values.tolist()
    assert decided.data.shape[1] == max(lengths)
    for b, hyps in enumerate(hypotheses(out["output"])):
        score = lambda h: h[1] / len(h[0]) if normalise and h[0] else -float("inf") if normalise else h[1]  # noqa: E731
        best = max(hyps, key=score)
        assert tuple(decided.data[b, : lengths[b]].tolist()) == best[0]


def test_the_loss_of_a_decision_is_its_edit_distance_to_the_target():
    out = run(make(decoder(PLAIN, beam=2)))
    value = out.losses["decision"]
    assert value.sum is None and float(value.error) >= 0 and float(value.inv_norm) == 8
    assert list(out.losses) == ["decision"]


def test_layers_of_the_loop_are_traced_back_to_the_final_hypotheses():
    shown = {name: {**ATTENTION[name], "is_output_layer": True} for name in ("s", "prob")}
    layers = decoder({**ATTENTION, **shown}, beam=3, max_seq_len=4)
    layers["states"] = {"class": "copy", "from": "output/s", "is_output_layer": True}
    layers["probs"] = {"class": "copy", "from": "output/prob", "is_output_layer": True}
    net = make(layers)
    out = run(net)
    states, probs = out["states"].batch_major(), out["probs"].batch_major()
    for b, hyps in enumerate(hypotheses(out["output"])):
        steps = Steps(net, out, b)
        for k, (labels, _) in enumerate(hyps):
            label, state = 0, steps.start()
            for t, y in enumerate(labels):
                log_p, state = steps.step(label, state)
                torch.testing.assert_close(probs.data[b * 3 + k, t].log().tolist(), log_p, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(states.data[b * 3 + k, t], state[0], rtol=1e-4, atol=1e-5)
                label = y


@pytest.mark.parametrize("optimize", [True, False])
def test_search_does_not_depend_on_what_is_moved_out_of_the_loop(optimize):
    layers = decoder(ATTENTION, beam=3, max_seq_len=4)
    layers["output"]["optimize_move_layers_out"] = optimize
    found = run(make(layers))
    expected = run(make(decoder(ATTENTION, beam=3, max_seq_len=4)))
    torch.testing.assert_close(valid_part(found["output"]), valid_part(expected["output"]))
    torch.testing.assert_close(found["output"].beam.scores, expected["output"].beam.scores)
