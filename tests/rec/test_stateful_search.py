"""Layers with a state in search: the score of a hypothesis is that of its labels, whoever it was extended from."""

import pytest
import torch

from returnn_lite.tensor import Dim
from tests.nets import batch, network, randomised

TIME, HISTORY = Dim(None, "time"), Dim(None, "history")
KEYS = {
    "data": {"dim": 4, "same_dim_tags_as": {"T": TIME}},
    "classes": {"dim": 6, "sparse": True, "same_dim_tags_as": {"T": TIME}},
    "labels": {"dim": 6, "sparse": True},
}
LENGTHS = {"time": [5, 5, 5], "labels": [3, 2, 1]}
ATTEND = {"class": "self_attention", "num_heads": 2, "total_key_dim": 6, "n_out": 4, "attention_left_only": True}
TARGET = {"target": "layer:base:data:labels"}


def linear(source, n_out=4, **more):
    return {"class": "linear", "from": source, "n_out": n_out, "activation": "tanh", **more}


MASKED = {
    "odd": {"class": "compare", "from": "prev:output", "kind": "greater", "value": 2},
    "it": {"class": "masked_computation", "mask": "odd", "from": "emb", "unit": {**ATTEND, "from": "data"}},
}
UNITS = {
    "self_attention": {"it": {**ATTEND, "from": ["emb", "prev:it"]}},
    "relative positions": {
        "shift": {"class": "relative_positional_encoding", "from": "emb", "n_out": 3, "clipping": 2},
        "it": {**ATTEND, "from": "emb", "key_shift": "shift"},
    },
    "positions": {"p": {"class": "positional_encoding", "n_out": 4, "from": ":i"}, "it": linear(["p", "emb"])},
    "cum_concat": {
        "all": {"class": "cum_concat", "from": "emb", "out_spatial_dim": HISTORY},
        "energy": {"class": "dot", "from": ["all", "emb"], "reduce": "F", "var1": HISTORY, "var2": ()},
        "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": HISTORY},
        "it": {"class": "generic_attention", "weights": "weights", "base": "all"},
    },
    "state of a cell": {
        "cell": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["emb", "prev:now"]},
        "now": {"class": "get_last_hidden_state", "from": "cell", "n_out": 6},
        "before": {"class": "get_last_hidden_state", "from": "prev:cell", "n_out": 3, "key": "c"},
        "it": linear(["now", "before"]),
    },
    "edit distances": {
        "table": {"class": "edit_distance_table", "from": "output", **TARGET},
        "next": {"class": "optimal_completions", "from": "prev:table", **TARGET},
        "it": {"class": "cast", "from": "next", "dtype": "float32"},
    },
    "two-dimensional": {"it": {"class": "twod_lstm", "from": ["base:data:labelled", "emb"], "n_out": 3}},
    "masked attention": MASKED,
}
KEYS["labelled"] = {"shape": (None, 2)}
LENGTHS["labelled"] = [3, 1, 2]


def run(unit, data, lengths, search):
    choice = {"class": "choice", "beam_size": 4, "from": "prob", "target": "classes", "initial_output": 0}
    prob = {"class": "softmax", "from": ["it", "emb", "data:source"], "n_out": 6, "is_output_layer": True}
    inner = {
        "output": {**choice, "length_normalization": False},
        "emb": linear("prev:output"),
        "prob": prob,
        **unit,
    }
    layers = {"output": {"class": "rec", "from": "data:data", "target": "classes", "unit": inner}}
    net = randomised(network(layers, KEYS, search=search, behavior_version=12), 1.5)
    with torch.no_grad():
        return net(data, lengths)


@pytest.mark.parametrize("name", UNITS)
def test_scores_are_those_of_the_labels(name):
    data, lengths = batch(KEYS, LENGTHS)
    found = run(UNITS[name], data, lengths, search=True)
    labels = found["output"].batch_major().data.reshape(3, 4, -1)  # (B, beam, T)
    assert len({tuple(path[:-1].tolist()) for path in labels[0]}) > 1  # they have different pasts
    for k in range(4):
        out = run(UNITS[name], {**data, "classes": labels[:, k]}, lengths, search=False)
        log = out["output"].parts["prob"].batch_major().data.log()
        total = log.gather(2, labels[:, k].long().unsqueeze(2)).sum((1, 2))
        torch.testing.assert_close(total, found["output"].beam.scores[:, k], rtol=1e-4, atol=1e-4)
