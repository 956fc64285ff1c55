"""Losses over sequences: CTC against the list of all paths, edit distances against the textbook recursion."""

import itertools
import math
from functools import cache

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.losses.frames import LABELS, LENGTHS, frames, labels, loss, normal
from tests.nets import DENSE, batch, gradients, network, randomised

V = 3  # labels 0, 1; blank 2
LOGITS = normal(3, 4, V)
WORDS = [[0, 1], [1], [1, 1]]


def target(words=WORDS):
    longest = max(len(w) for w in words)
    data = torch.tensor([[*w, *[0] * (longest - len(w))] for w in words])
    return labels(data, time=LABELS, ends=[len(w) for w in words])


def output(logits=LOGITS, ends=LENGTHS):
    return frames(torch.softmax(logits, -1), ("softmax", logits), dim=None, ends=ends)


def collapsed(path, merge=True):
    kept = [x for i, x in enumerate(path) if not merge or i == 0 or x != path[i - 1]]
    return [x for x in kept if x != V - 1]


def path_scores(logits, words, ends=LENGTHS):
    """Per sequence the log probabilities of all paths that give its labels."""
    log_p = torch.log_softmax(logits.double(), -1)
    for b, word in enumerate(words):
        paths = [p for p in itertools.product(range(V), repeat=ends[b]) if collapsed(p) == word]
        yield [sum(float(log_p[b, t, x]) for t, x in enumerate(p)) for p in paths]


def ctc_value(logits=LOGITS, words=WORDS, best=False):
    total = 0.0
    for scores in path_scores(logits, words):
        total -= max(scores) if best else math.log(sum(map(math.exp, scores)))
    return total


def distance(a, b):
    """Levenshtein distance by its recursion."""

    @cache
    def d(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


def close(found, expected):
    torch.testing.assert_close(float(found.detach()), float(expected), rtol=1e-5, atol=1e-5)


def test_ctc_sums_over_all_paths():
    close(loss("ctc").compute(output(), target()).value, ctc_value())
    close(loss("ctc", use_native=True, beam_width=1).compute(output(), target()).value, ctc_value())


def test_ctc_of_plain_probabilities_and_of_log_values():
    plain = frames(torch.softmax(LOGITS, -1), dim=None)
    close(loss("ctc").compute(plain, target()).value, ctc_value())
    in_log_space = frames(torch.log_softmax(LOGITS, -1), dim=None)
    close(loss("ctc", output_in_log_space=True).compute(in_log_space, target()).value, ctc_value())


def test_ctc_of_the_best_path_alone():
    close(loss("ctc", use_viterbi=True).compute(output(), target()).value, ctc_value(best=True))


def test_ctc_gradient():
    def value(logits):
        return loss("ctc").compute(output(logits), target()).value

    assert torch.autograd.gradcheck(value, LOGITS.double().requires_grad_())


def test_ctc_with_repeated_labels_collapsed_first():
    found = loss("ctc", target_collapse_repeated=True).compute(output(), target()).value
    close(found, ctc_value(words=[[0, 1], [1], [1]]))


def test_ctc_with_targets_clipped_to_what_fits():
    words = [[0, 1, 0], [1, 0], [1, 0]]
    ends = [2, 1, 3]
    found = loss("ctc", auto_clip_target_len=True).compute(output(ends=ends), target(words)).value
    clipped = [w[: max(n - 1, 0)] for w, n in zip(words, ends, strict=True)]
    expected = -sum(math.log(sum(map(math.exp, s))) for s in path_scores(LOGITS, clipped, ends))
    close(found, expected)


def test_ctc_error_is_the_edit_distance_of_the_decoded_labels():
    made = loss("ctc", beam_width=1)
    best = [collapsed(LOGITS[b, :n].argmax(-1).tolist()) for b, n in enumerate(LENGTHS)]
    expected = sum(distance(tuple(a), tuple(w)) for a, w in zip(best, WORDS, strict=True))
    close(made.compute(output(), target()).error, expected)
    wide = loss("ctc")
    wide.training = True
    close(wide.compute(output(), target()).error, expected)


def test_ctc_error_by_search_takes_the_most_probable_labels():
    found = 0
    for b, n in enumerate(LENGTHS):
        totals = {}
        for path in itertools.product(range(V), repeat=n):
            key = tuple(collapsed(path))
            score = math.exp(sum(float(torch.log_softmax(LOGITS, -1)[b, t, x]) for t, x in enumerate(path)))
            totals[key] = totals.get(key, 0.0) + score
        found += distance(max(totals, key=totals.get), tuple(WORDS[b]))
    close(loss("ctc").compute(output(), target()).error, found)


@pytest.mark.parametrize("name", ["ctc", "edit_distance"])
def test_norm_is_the_number_of_target_labels(name):
    assert float(loss(name).inverse_norm(output(), target())) == sum(map(len, WORDS))


def test_edit_distance_of_labels():
    guesses = [[0, 1, 1], [0, 0], [1]]
    found = loss("edit_distance").compute(target(guesses), target())
    assert found.value is None
    close(found.error, sum(distance(tuple(a), tuple(b)) for a, b in zip(guesses, WORDS, strict=True)))


def test_edit_distance_with_renamed_labels():
    guesses = [[0, 0], [0], [0, 0]]
    found = loss("edit_distance", label_map={1: 0}).compute(target(guesses), target())
    close(found.error, 0)


def test_edit_distance_of_ctc_output():
    best = [collapsed(LOGITS[b, :n].argmax(-1).tolist()) for b, n in enumerate(LENGTHS)]
    expected = sum(distance(tuple(a), tuple(w)) for a, w in zip(best, WORDS, strict=True))
    close(loss("edit_distance", ctc_decode=True).compute(output(), target()).error, expected)


def test_errors():
    with pytest.raises(ConfigError, match="`beam_width` must be 1 with `use_native`, but is 100 instead"):
        loss("ctc", use_native=True)
    with pytest.raises(ConfigError, match="`ctc_opts` has no entry 'ctc_merge_repeatd'; did you mean"):
        loss("ctc", ctc_opts={"ctc_merge_repeatd": False})
    with pytest.raises(ConfigError, match=r"`edit_distance` needs sparse output \(or `ctc_decode`\)"):
        loss("edit_distance").compute(output(), target())
    with pytest.raises(ConfigError, match="needs sparse labels"):
        loss("ctc").compute(output(), output())
    for name in ("ctc", "edit_distance"):
        with pytest.raises(ConfigError, match=f"`{name}` needs a target"):
            loss(name).compute(output(), None)


CTC_NET = {"output": {"class": "softmax", "from": "data", "loss": "ctc", "target": "classes"}}


@pytest.mark.parametrize(("config", "is_zero"), [
    ({}, False), ({"tf_native_ctc_zero_infinity": True}, True), ({"behavior_version": 30}, True),
])  # fmt: skip
def test_native_ctc_obeys_the_config_for_what_has_no_alignment(config, is_zero):
    opts = {"use_native": True, "beam_width": 1}
    net = network({"output": {**CTC_NET["output"], "loss_opts": opts}}, **config)
    out = net(*batch(DENSE, {"data": [2, 1, 1], "classes": [3, 2, 3]}))
    grads = gradients(net, out.objective)
    assert out.objective == 0
    assert (float(grads["output/b"].abs().sum()) == 0) == is_zero


def test_ctc_needs_one_class_more_than_the_target():
    net = network({"output": {**CTC_NET["output"], "n_out": 5}})
    with pytest.raises(ConfigError, match="the output must have dim 6"):
        net(*batch(DENSE, {"data": [4, 4, 4], "classes": [3, 2, 1]}))


@pytest.mark.parametrize(("loss", "norm"), [("ce", 15), ("ctc", 6)])
def test_a_time_axis_of_fixed_size_is_full_everywhere(loss, norm):
    layer = {"output": {"class": "softmax", "from": "data", "loss": loss, "target": "classes"}}
    free = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
    fixed = {"data": {"shape": (5, 4), "time_dim_axis": 1}, "classes": dict(free["classes"])}
    ends = {"data": [5, 5, 5], "classes": [5, 5, 5] if loss == "ce" else [3, 1, 2]}
    if loss == "ce":
        fixed["classes"] |= {"shape": (5,), "time_dim_axis": 1}
    found = [randomised(network(layer, keys))(*batch(keys, ends)).losses["output"] for keys in (fixed, free)]
    assert found[0].inv_norm == found[1].inv_norm == norm
    torch.testing.assert_close(found[0].sum, found[1].sum)
