"""Overlay nets: a search while training, sharing the parameters."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

EXTERN = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [5, 3, 4], "classes": [3, 2, 4]}
UNIT = {
    "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
    "embed": {"class": "linear", "n_out": 4, "from": "prev:output"},
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "embed"},
    "prob": {"class": "softmax", "from": ["s", "base:mean"], "target": "classes", "loss": "ce", "L2": 0.1},
}
LAYERS = {
    "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
    "output": {"class": "rec", "from": [], "unit": UNIT, "target": "classes", "max_seq_len": 6},
    "decision": {"class": "decide", "from": "extra.search:output", "loss": "edit_distance", "target": "classes"},
}


def run(net, train=False):
    net.train(train)
    data, lengths = batch(EXTERN, LENGTHS)
    return net(data, lengths)


def test_the_search_copy_gives_what_a_search_gives_and_shares_all_parameters():
    both = randomised(network(LAYERS, EXTERN))
    searching = randomised(
        network({**LAYERS, "decision": {**LAYERS["decision"], "from": "output"}}, EXTERN, search=True)
    )
    assert list(both.params) == list(searching.params)
    found, wanted = run(both), run(searching)
    assert found["output"].beam is None
    torch.testing.assert_close(found["decision"].data, wanted["decision"].data)
    torch.testing.assert_close(found["extra.search:output"].beam.scores, wanted["output"].beam.scores)
    assert set(found.losses) == {"output/prob", "decision"}
    torch.testing.assert_close(found.losses["decision"].error, wanted.losses["decision"].error)


def test_constraints_of_shared_parameters_count_once():
    with_search = randomised(network(LAYERS, EXTERN))
    without = randomised(network({n: d for n, d in LAYERS.items() if n != "decision"}, EXTERN))
    torch.testing.assert_close(run(with_search).objective, run(without).objective)


@pytest.mark.parametrize("grad_only", [False, True])
def test_the_expected_loss_of_a_beam(grad_only):
    options = {"loss": {"class": "edit_distance"}, "loss_correction_grad_only": grad_only}
    expected = {
        "class": "copy",
        "from": "extra.search:output",
        "loss": "expected_loss",
        "loss_opts": options,
        "target": "classes",
    }
    net = randomised(network({**LAYERS, "expected": expected}, EXTERN))
    out = run(net, train=True)
    beam = out["expected"].beam
    hypotheses = out["expected"].batch_major()
    data, _ = batch(EXTERN, LENGTHS)
    lengths = hypotheses.length(hypotheses.spec.dims[1]).values
    distances = torch.tensor([
        float(distance(row[:n].tolist(), data["classes"][i // 3][: LENGTHS["classes"][i // 3]].tolist()))
        for i, (row, n) in enumerate(zip(hypotheses.data, lengths, strict=True))
    ]).reshape(3, 3)  # fmt: skip
    weights = torch.softmax(beam.scores, -1)
    corrected = distances if grad_only else distances - distances.mean(-1, keepdim=True)
    torch.testing.assert_close(out.losses["expected"].sum, (weights * corrected).sum() / 3)
    grads = torch.autograd.grad(out.losses["expected"].sum, [net.params["output/rec/prob/W"]])
    assert bool(grads[0].any())


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, old = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(old[j] + 1, row[-1] + 1, old[j - 1] + (x != y)))
    return row[-1]


def test_search_score_is_the_sum_of_all_scores():
    layers = {**LAYERS, "score": {"class": "copy", "from": "extra.search:output", "loss": "search_score"}}
    out = run(randomised(network(layers, EXTERN)))
    torch.testing.assert_close(out.losses["score"].sum, -out["extra.search:output"].beam.scores.sum())


def test_an_entry_of_the_overlay_net_is_used_there_only():
    layers = {
        "a": {"class": "linear", "n_out": 3, "from": "data"},
        "extra.other:b": {"class": "eval", "from": "a", "eval": "source(0) * 2.0"},
        "b": {"class": "copy", "from": "a"},
        "c": {"class": "copy", "from": "b"},
        "output": {"class": "combine", "kind": "sub", "from": ["extra.other:c", "c"]},
    }
    net = randomised(network(layers, EXTERN))
    out = run(net)
    assert list(net.params) == ["a/W", "a/b"]
    torch.testing.assert_close(out["output"].data, out["a"].data)


def test_an_overlay_net_loss_of_the_same_name_is_marked():
    layers = {"output": {"class": "softmax", "from": "data", "target": "data", "loss": "mean_l1", "n_out": 4}}
    net = network({**layers, "second": {"class": "copy", "from": "extra.x:output", "is_output_layer": True}}, EXTERN)
    assert set(run(net).losses) == {"output", "extra.x:output"}


def test_unknown_layers_of_overlay_nets():
    with pytest.raises(ConfigError, match='"decision"'):
        network(
            {"output": {"class": "copy", "from": "extra.x:decisoin"}, "decision": {"class": "copy", "from": "data"}},
            EXTERN,
        )
