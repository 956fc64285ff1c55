"""Layers that align frames to labels, against enumeration and against each other; edit distances, written out."""

import itertools
import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.ops.staircase import staircase_posteriors
from tests.nets import batch, network, randomised

KEYS = {"data": {"dim": 4}, "labels": {"dim": 4, "sparse": True}, "others": {"dim": 4, "sparse": True}}
LENGTHS = {"data": [6, 4, 5], "labels": [2, 1, 3], "others": [4, 2, 1]}
SCORES = {"scores": {"class": "softmax", "n_out": 5, "from": "data"}}
LOG = {"log": {"class": "activation", "activation": "safe_log", "from": "scores"}}
SOFT = {"class": "fast_bw", "align_target": "ctc", "align_target_key": "labels", "from": "log"}
BEST = {"class": "forced_align", "align_target": "data:labels", "from": "scores", "topology": "ctc"}
BEST["input_type"] = "prob"


def outputs(layers, *names, **config):
    """The named layers of a net, and its data."""
    entries = {n: {**d, "is_output_layer": True} if n in names else d for n, d in layers.items()}
    net = randomised(network({**SCORES, **LOG, "output": {"class": "copy", "from": "log"}, **entries}, KEYS, **config))
    data, lengths = batch(KEYS, LENGTHS)
    with torch.no_grad():
        out = net(data, lengths)
    return [out[n] for n in names], data


def collapsed(path, blank):
    """What a path of classes says: repetitions merged, blanks dropped."""
    merged = [c for i, c in enumerate(path) if i == 0 or path[i - 1] != c]
    return [c for c in merged if c != blank]


def paths(labels, frames, blank, classes):
    """All alignments, by enumeration."""
    return [p for p in itertools.product(range(classes), repeat=frames) if collapsed(p, blank) == labels]


def test_soft_and_best_alignment_and_the_loss_are_those_of_all_alignments():
    layers = {
        "soft": SOFT,
        "best": BEST,
        "best_score": {"class": "copy", "from": "best/scores"},
        "loss": {"class": "ctc_loss", "logits": "log", "targets": "data:labels", "logits_normalized": True},
    }
    (soft, best, score, loss, log), data = outputs(layers, "soft", "best", "best_score", "loss", "log")
    soft, best, log = (x.batch_major().data for x in (soft, best, log))
    for b, (frames, count) in enumerate(zip(LENGTHS["data"], LENGTHS["labels"], strict=True)):
        ways = torch.tensor(paths(data["labels"][b, :count].tolist(), frames, 4, 5))
        scores = log[b, torch.arange(frames), ways].sum(-1)
        torch.testing.assert_close(loss.data[b], -scores.logsumexp(0), rtol=1e-4, atol=1e-4)
        shares = torch.zeros(frames, 5)
        for way, share in zip(ways, scores.softmax(0), strict=True):
            shares[torch.arange(frames), way] += share
        torch.testing.assert_close(soft[b, :frames], shares, rtol=1e-4, atol=1e-4)
        assert not soft[b, frames:].any() and not best[b, frames:].any()
        assert best[b, :frames].tolist() == ways[scores.argmax()].tolist()
        torch.testing.assert_close(score.data[b], scores.max(), rtol=1e-4, atol=1e-4)


def test_the_soft_alignment_keeps_the_loss_of_each_sequence():
    loss = {"class": "ctc_loss", "logits": "log", "targets": "data:labels", "logits_normalized": True}
    (soft, loss), _ = outputs({"soft": SOFT, "loss": loss}, "soft", "loss")
    torch.testing.assert_close(soft.sequence_loss, loss.data, rtol=1e-4, atol=1e-4)
    assert not soft.data.requires_grad


def test_probabilities_and_their_logarithms_align_alike():
    prob = {**SOFT, "from": "scores", "input_type": "prob"}
    (a, b), _ = outputs({"a": SOFT, "b": prob}, "a", "b")
    torch.testing.assert_close(a.data, b.data)


def test_the_staircase_is_passed_step_by_step():
    frames, states = 5, 3
    log = torch.randn(1, frames, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    ways = [w for w in itertools.product(range(states), repeat=frames) if w[0] == 0 and w[-1] == states - 1]
    ways = [w for w in ways if all(b - a in (0, 1) for a, b in itertools.pairwise(w))]
    scores = torch.stack([log[0, torch.arange(frames), torch.tensor(w)].sum() for w in ways])
    expected = torch.zeros(frames, 4)
    for way, share in zip(ways, scores.softmax(0), strict=True):
        expected[torch.arange(frames), torch.tensor(way)] += share
    found, loss = staircase_posteriors(log, torch.tensor([frames]), torch.tensor([states]))
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(loss[0], -scores.logsumexp(0))
    found, loss = staircase_posteriors(log, torch.tensor([2]), torch.tensor([states]))
    assert not found.any() and loss.tolist() == [0.0]


def test_scores_are_raised_then_scaled():
    (plain, scaled), _ = outputs({"a": {**SOFT, "am_scale": 0.5}, "b": {**SOFT, "min_prob": 1.0}}, "a", "b")
    assert not torch.allclose(plain.data, scaled.data)
    assert torch.isfinite(scaled.data).all()


def distances(a, b):
    """The table of edit distances."""
    table = [[max(i, j) if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        replaced = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
        table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, replaced)
    return table


def sequences(data):
    return [
        (data["others"][b, :n].tolist(), data["labels"][b, :m].tolist())
        for b, (n, m) in enumerate(zip(LENGTHS["others"], LENGTHS["labels"], strict=True))
    ]


def test_edit_distances_are_those_of_the_table():
    layers = {
        "distance": {"class": "edit_distance", "a": "data:others", "b": "data:labels"},
        "table": {"class": "edit_distance_table", "from": "data:others", "target": "labels"},
    }
    (distance, table), data = outputs(layers, "distance", "table")
    for i, (a, b) in enumerate(sequences(data)):
        expected = distances(a, b)
        assert distance.data[i] == expected[-1][-1]
        assert table.batch_major().data[i, : len(a), : len(b) + 1].tolist() == expected[1:]
    assert table.length(table.spec.dims[2]).values.tolist() == [n + 1 for n in LENGTHS["labels"]]


def test_optimal_completions_are_the_least_of_the_next_row():
    target = {"target": "layer:base:data:labels"}
    unit = {
        "table": {"class": "edit_distance_table", "from": "data:source", **target},
        "output": {"class": "optimal_completions", "from": "prev:table", **target},
    }
    (out,), data = outputs({"loop": {"class": "rec", "from": "data:others", "unit": unit}}, "loop")
    out = out.batch_major().data
    for i, (a, b) in enumerate(sequences(data)):
        for t in range(len(a)):
            assert out[i, t].tolist() == [min(distances([*a[:t], v], b)[-1]) for v in range(4)]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ({**SOFT, "align_target": "sprint"}, '"sprint" needs an external speech toolkit'),
        ({**SOFT, "align_target": "hmm"}, '`align_target` must be "ctc" or "staircase", but is \'hmm\' instead'),
        ({**SOFT, "ctc_opts": {"label_lop": True}}, "`ctc_opts` has no entry 'label_lop'; did you mean \"label_loop\""),
        ({**SOFT, "from": "data"}, "the source must have 5 classes"),
        ({**BEST, "topology": "hmm"}, '`topology` must be "ctc" or "rna"'),
        ({**BEST, "input_type": "logprob"}, "`input_type` must be one of log_prob, prob, but is 'logprob'"),
        ({**BEST, "blank_included": True}, "the source must have 4 classes"),
        ({"class": "edit_distance_table", "from": "data:others", "target": "data"}, "`target` must be labels"),
    ],
)
def test_wrong_options_are_named(layer, text):
    with pytest.raises(ConfigError) as caught:
        outputs({"layer": layer}, "layer")
    assert text in str(caught.value)


def test_sequences_without_an_alignment():
    (score, loss), _ = outputs(
        {
            "best": {**BEST, "align_target": "many", "topology": "rna"},
            "many": {"class": "concat", "from": [("data:labels", "T"), ("data:labels", "T"), ("data:labels", "T")]},
            "score": {"class": "copy", "from": "best/scores"},
            "loss": {"class": "ctc_loss", "logits": "log", "targets": "many"},
        },
        "score",
        "loss",
    )
    assert score.data[2] == -math.inf and loss.data[2] == 0
    assert torch.isfinite(score.data[1])
