"""Layers of a loop moved before or behind it, and all kept inside: the numbers are the same."""

import pytest
import torch

from returnn_lite.tensor import Dim
from tests.nets import batch, network, randomised, valid_part

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}, "other": {"dim": 3}}
HISTORY = Dim(None, "history")
LENGTHS = {"data": [5, 3, 1], "classes": [5, 3, 1], "other": [2, 4, 3]}


def lin(source, size=3, activation="tanh", **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def cell(source, size=4, unit="LSTMBlock", **more):
    return {"class": "rnn_cell", "unit": unit, "n_out": size, "from": source, **more}


def lstm(source, size=3, **more):
    return {"class": "rec", "unit": "nativelstm2", "n_out": size, "from": source, **more}


def masked(unit, source="data:source", mask="m", **more):
    return {"class": "masked_computation", "mask": mask, "from": source, "unit": unit, **more}


MASK = {
    "m0": {"class": "reduce", "mode": "sum", "axes": "F", "from": "data:source"},
    "m": {"class": "compare", "from": "m0", "value": 0.0, "kind": "greater"},
}
NORMALISED = {"masked_time": False, "update_sample_only_in_training": True}  # by the running values in these tests
SUBNET = {"a": lin("data"), "c": cell("a"), "output": lin(["c", "a"], 2)}
UNITS = {
    "a cell with its own output": {"s": cell(["data:source", "prev:o"]), "o": lin("s"), "output": lin("o")},
    "a cell alone": {"s": cell("data:source"), "output": lin("s")},
    "a normalised cell": {"s": cell("data:source", batch_norm=NORMALISED), "output": lin(["s", "prev:s"])},
    "a cell of constant input": {"s": cell("base:ctx"), "output": lin(["s", "data:source"])},
    "a cell of constant previous input": {
        "k": lin("base:ctx"),
        "s": cell("prev:k"),
        "output": lin(["s", "data:source"]),
    },
    "an LSTM in the loop": {"s": lstm(["data:source", "prev:s"]), "output": lin("s")},
    "previous frames": {"x": lin("data:source"), "y": lin(["prev:x", "x"]), "output": lin(["prev:y", "y"])},
    "the tick": {
        "t": {"class": "cast", "from": ":i", "dtype": "float32"},
        "x": {"class": "eval", "from": ["data:source", "t"], "eval": "source(0) * (source(1) + 1.)"},
        "output": lin("x"),
    },
    "ones": {"x": lin("data:source", initial_output="ones"), "output": lin(["prev:x"])},
    "a number": {"x": lin("data:source", initial_output=0.5), "output": lin(["prev:x"])},
    "a vector": {"x": lin("data:source", initial_output="var"), "output": lin(["prev:x"])},
    "applied to zeros": {"x": lin("data:source", initial_output="apply(0)"), "output": lin(["prev:x"])},
    "a base layer": {"x": lin("data:source", initial_output="base:ctx3"), "output": lin(["prev:x"])},
    "attention": {
        "s": cell(["data:source", "prev:att"]),
        "q": lin("s", 3, None),
        "e0": {"class": "combine", "kind": "add", "from": ["base:keys", "q"]},
        "e": lin("e0", 1, "tanh"),
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "att0": {"class": "generic_attention", "weights": "w", "base": "base:keys"},
        "att": {"class": "merge_dims", "axes": "except_batch", "from": "att0"},
        "output": lin(["att", "s"]),
    },
    "attention without feedback": {
        "q": lin("data:source", 3, None),
        "e0": {"class": "combine", "kind": "add", "from": ["base:keys", "q"]},
        "e": lin("e0", 1, "tanh"),
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "att0": {"class": "generic_attention", "weights": "w", "base": "base:keys"},
        "att": {"class": "merge_dims", "axes": "except_batch", "from": "att0"},
        "output": lin(["att", "prev:att"]),
    },
    "a sub-network": {
        "sn": {"class": "subnetwork", "from": ["data:source", "prev:sn"], "subnetwork": SUBNET},
        "output": lin("sn"),
    },
    "a sub-network that moves": {
        "sn": {"class": "subnetwork", "from": "data:source", "subnetwork": SUBNET},
        "output": lin(["sn", "prev:sn"]),
    },
    "a sub-network with previous frames": {
        "sn": {
            "class": "subnetwork",
            "from": "data:source",
            "subnetwork": {"a": lin(["data", "prev:a"]), "output": lin(["a", "base:prev:x"], 2)},
        },
        "x": lin("data:source"),
        "output": lin("sn"),
    },
    "a masked linear layer": {**MASK, "mc": masked(lin("data")), "output": lin(["mc", "prev:mc"])},
    "a masked LSTM": {**MASK, "mc": masked(lstm("data")), "output": lin(["mc"])},
    "a masked cell": {**MASK, "mc": masked(cell("data", unit="gru")), "output": lin(["mc"])},
    "a masked sub-network": {
        **MASK,
        "mc": masked({"class": "subnetwork", "from": "data", "subnetwork": SUBNET}),
        "um": {"class": "unmask", "from": "mc", "mask": "m"},
        "output": lin(["um"]),
    },
    "a masked layer that reads others": {
        **MASK,
        "x": lin("data:source"),
        "mc": masked(
            {
                "class": "subnetwork",
                "from": "data",
                "subnetwork": {"l": lstm(["data", "base:x"]), "output": lin(["l", "base:base:ctx"])},
            }
        ),
        "output": lin(["mc"]),
    },
    "a masked LSTM by the previous mask": {
        **MASK,
        "m2": {"class": "copy", "from": "m", "initial_output": True},
        "mc": masked(lstm("data"), mask="prev:m2"),
        "output": lin(["mc"]),
    },
    "a masked layer with its own start": {
        **MASK,
        "mc": masked(lin("data", initial_output="ones")),
        "output": lin(["mc", "prev:mc"]),
    },
    "masked self attention": {
        **MASK,
        "mc": masked(
            {
                "class": "self_attention",
                "num_heads": 1,
                "total_key_dim": 2,
                "n_out": 3,
                "attention_left_only": True,
                "from": "data",
            }
        ),
        "output": lin(["mc"]),
    },
    "frames masked outside": {
        **MASK,
        "um": {"class": "unmask", "from": "base:chosen", "mask": "m"},
        "output": lin(["um", "data:source"]),
    },
    "all frames so far, reduced": {
        "all": {"class": "cum_concat", "from": "data:source", "out_spatial_dim": HISTORY},
        "most": {"class": "reduce", "mode": "max", "axes": HISTORY, "from": "all"},
        "mean": {"class": "reduce", "mode": "mean", "axes": "stag:history", "from": "all"},
        "output": lin(["most", "mean"]),
    },
    "all frames so far, weighted": {
        "all": {"class": "cum_concat", "from": "data:source", "out_spatial_dim": HISTORY},
        "energy": lin("all", 1),
        "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": HISTORY},
        "sum": {"class": "dot", "from": ["weights", "all"], "reduce": HISTORY, "var1": "auto", "var2": "auto"},
        "output": {"class": "merge_dims", "axes": "except_batch", "from": "sum"},
    },
    "all frames so far, read inside": {
        "all": {"class": "cum_concat", "from": "data:source", "out_spatial_dim": HISTORY},
        "shift": lin("prev:output", 4),
        "shifted": {"class": "combine", "kind": "add", "from": ["all", "shift"]},
        "mean": {"class": "reduce", "mode": "mean", "axes": HISTORY, "from": "shifted"},
        "output": lin("mean", 4),
    },
    "a loop inside": {
        "h": {
            "class": "rec",
            "from": "base:other",
            "unit": {"output": lin(["data:source", "prev:output", "base:x"])},
        },
        "x": lin("data:source"),
        "hl": {"class": "reduce", "mode": "mean", "axes": "T", "from": "h"},
        "output": lin(["hl"]),
    },
    "the last state of a sequence per tick": {
        "x": lin("data:source"),
        "sum": {"class": "combine", "kind": "add", "from": ["base:keys", "x"]},
        "h": lstm("sum"),
        "backward": {**lstm("sum"), "direction": -1, "unit": "gru"},
        "last": {"class": "get_last_hidden_state", "from": ["h", "backward"], "n_out": 9},
        "output": lin("last"),
    },
    "the last state of a sequence after feedback": {
        "x": lin(["data:source", "prev:output"]),
        "sum": {"class": "combine", "kind": "add", "from": ["base:keys", "x"]},
        "h": lstm("sum"),
        "last": {"class": "get_last_hidden_state", "from": "h", "n_out": 3, "key": "c"},
        "output": lin("last"),
        "aside": lin("data:source"),
        "after": lin(["aside", "output"], is_output_layer=True),
    },
    "one of two layers by the tick": {
        "first": {"class": "compare", "from": ":i", "value": 2, "kind": "less"},
        "output": {
            "class": "cond",
            "condition": "first",
            "true_layer": lin("data:source"),
            "false_layer": {"class": "copy", "from": "base:ctx3"},
        },
    },
    "a loop inside with feedback": {
        "h": {
            "class": "rec",
            "from": "base:other",
            "unit": {"s": cell(["data:source", "prev:output"]), "output": lin(["s", "base:x"])},
        },
        "x": lin(["data:source", "prev:hl"]),
        "hl": {"class": "reduce", "mode": "mean", "axes": "T", "from": "h", "n_out": 3},
        "output": lin(["hl"]),
    },
}


def result(unit, moved, padding="zeros"):
    """Valid frames of the output, and the gradients of their sum."""
    net = {
        "ctx": {"class": "reduce", "mode": "mean", "axes": "T", "from": "keys"},
        "ctx3": lin("ctx"),
        "keys": lin("data:other"),
        "other": {"class": "copy", "from": "data:other"},
        "full": {"class": "eval", "from": "data:data", "eval": "source(0)"},
        "m0": {"class": "reduce", "mode": "sum", "axes": "F", "from": "data:data"},
        "m": {"class": "compare", "from": "m0", "value": 0.0, "kind": "greater"},
        "chosen": {"class": "masked_computation", "mask": "m", "from": "data:data", "unit": lin("data")},
        "output": {"class": "rec", "from": "data:data", "unit": unit, "optimize_move_layers_out": moved},
    }
    made = randomised(network(net, DATA))
    data, lengths = batch(DATA, LENGTHS, padding=padding)
    out = made(data, lengths)["output"]
    values = valid_part(out)
    names = [n for n, p in made.params.items() if p.requires_grad]
    grads = torch.autograd.grad(values.square().sum(), [made.params[n] for n in names], allow_unused=True)
    plan = made.layers["output"].program.plan
    return values, dict(zip(names, grads, strict=True)), plan


@pytest.mark.parametrize("name", list(UNITS))
def test_numbers_do_not_depend_on_the_place(name):
    values, grads, plan = result(UNITS[name], moved=True)
    kept, kept_grads, kept_plan = result(UNITS[name], moved=False)
    assert plan.before or plan.after
    assert not kept_plan.before and not kept_plan.after
    torch.testing.assert_close(values, kept)
    assert values.abs().sum() > 0
    for key, grad in grads.items():
        torch.testing.assert_close(grad, kept_grads[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("name", list(UNITS))
def test_frames_behind_the_ends_do_not_matter(name, moved):
    values, _, _ = result(UNITS[name], moved)
    others, _, _ = result(UNITS[name], moved, padding="garbage")
    torch.testing.assert_close(values, others)


@pytest.mark.parametrize("moved", [True, False])
def test_the_output_of_a_cell_is_normalised_in_training(moved):
    unit = {"output": cell("data:source", batch_norm={"masked_time": False, "use_shift": False, "use_std": False})}
    net = {"output": {"class": "rec", "from": "data:data", "unit": unit, "optimize_move_layers_out": moved}}
    out = randomised(network(net, DATA)).train()(*batch(DATA, {"data": [5, 5, 5]}))["output"]
    over = (0, 1) if moved else 1  # all frames at once, or those of a tick
    torch.testing.assert_close(out.data.mean(over), torch.zeros_like(out.data.mean(over)), rtol=0, atol=1e-5)
