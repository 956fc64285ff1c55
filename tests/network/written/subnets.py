"""Sub-networks without sources, in loops, in `cond`; conditions; code without sources; masked sub-networks."""

import torch

from tests.network.written.case import Case, evaluate, linear, loop, loss

SCALAR = {"shape": (), "batch_dim_axis": None, "dtype": "float32"}
FLAG = {**SCALAR, "dtype": "bool"}


def subnet(layers, source=(), **more):
    return {"class": "subnetwork", "from": list(source) if not isinstance(source, str) else source,
            "subnetwork": layers, **more}  # fmt: skip


def either(condition, true, false):
    return {"class": "cond", "from": [], "condition": condition, "true_layer": true, "false_layer": false}


def _shown(unit, source="data", **more):
    """A net whose output is that of the loop, with a loss on it."""
    return {"r": loop(unit, source, **more), "output": {"class": "copy", "from": "r"}, "prob": loss("r")}


def _affine(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _recurrent(name, first="data"):
    """A tanh layer of the frame and its own last output."""

    def run(v):
        h, frames = torch.zeros(3, 3), []
        for x in v[first].unbind(1):
            h = _affine(v, name, torch.cat([x, h], -1)).tanh()
            frames.append(h)
        return torch.stack(frames, 1)

    return run


def _masked(v):
    """An LSTM over the frames whose sum is positive; in between its output stays."""
    frames = []
    for row in v["data"]:
        h, c, rows = torch.zeros(3), torch.zeros(3), []
        for x in row:
            if x.sum() > 0:
                y = torch.cat([x, _affine(v, "x", x).tanh()])
                y = y @ v["r/rec/m/l/rec/W"] + h @ v["r/rec/m/l/rec/W_re"] + v["r/rec/m/l/rec/b"]
                a, i, f, o = y.chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * a.tanh()
                h = o.sigmoid() * c.tanh()
            rows.append(h)
        frames.append(torch.stack(rows))
    return torch.stack(frames)


POSITIVE = {
    "sum": {"class": "reduce", "mode": "sum", "axes": "F", "from": "data:source"},
    "mask": {"class": "compare", "kind": "greater", "from": "sum", "value": 0.0},
}
TWICE = subnet({"a": evaluate("base:data", "source(0) * 2."), "output": evaluate("a", "source(0) + 1.")})
CASES = {
    "a sub-network without source": Case(
        {"sub": TWICE, "output": {"class": "copy", "from": "sub"}, "prob": loss("sub")},
        expected=lambda v: 2 * v["data"] + 1,
    ),
    "a sub-network without source in another one": Case(
        {
            "h": linear("data"),
            "outer": subnet({"output": subnet({"output": linear("base:base:h", 2)})}),
            "output": {"class": "copy", "from": "outer"},
            "prob": loss("outer"),
        },
        expected=lambda v: _affine(v, "outer/output/output", _affine(v, "h", v["data"]).tanh()).tanh(),
    ),
    "a sub-network without source in a loop": Case(
        _shown(
            {
                "x": {"class": "copy", "from": ["data:source", "prev:output"]},
                "sub": subnet({"output": linear("base:x")}),
                "output": {"class": "copy", "from": "sub"},
            }
        ),
        expected=_recurrent("r/rec/sub/output"),
    ),  # fmt: skip
    "its own last frame inside of a sub-network": Case(
        _shown({"output": subnet({"output": linear(["data", "prev:output"])}, "data:source")}),
        expected=_recurrent("r/rec/output/output"),
    ),
    "the last frame of the loop inside of a sub-network": Case(
        _shown({"output": subnet({"output": linear(["data", "base:prev:output"])}, "data:source")}),
        expected=_recurrent("r/rec/output/output"),
    ),
    "a sub-network of cells": Case(
        _shown(
            {
                "s": subnet(
                    {
                        "low": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "data"},
                        "high": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["low", "prev:high"]},
                        "output": {"class": "combine", "kind": "add", "from": ["low", "high"]},
                    },
                    ["data:source", "prev:s"],
                ),
                "output": {"class": "copy", "from": "s"},
            }
        )
    ),
    "sources kept apart in a loop": Case(
        _shown(
            {
                "output": subnet(
                    {
                        "a": linear("data:0"),
                        "b": linear("data:1"),
                        "output": {"class": "combine", "kind": "add", "from": ["a", "b"]},
                    },
                    ["data:source", "prev:output"],
                    concat_sources=False,
                )
            }
        )
    ),  # fmt: skip
    "parts of a cycle in sub-networks": Case(
        _shown(
            {
                "one": subnet({"output": linear(["data", "base:prev:two"])}, "data:source"),
                "two": subnet({"in": linear("data", 2), "output": linear(["in", "base:base:h"])}, "one"),
                "output": {"class": "copy", "from": ["one", "two/in"]},
            }
        )
        | {"h": {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"}}
    ),
    "branches that are sub-networks": Case(
        {
            "flag": {"class": "train_flag"},
            "c": either(
                "flag",
                subnet({"output": evaluate("base:data", "source(0) * 2.")}),
                subnet({"output": {"class": "copy", "from": "base:data"}}),
            ),
            "l": linear("c"),
            "output": {"class": "copy", "from": "c"},
            "prob": loss("l"),
        },
        expected=lambda v: v["data"],
    ),  # fmt: skip
    "branches with several layers": Case(
        {
            "no": {"class": "eval", "from": [], "eval": "tf.constant(False)", "out_type": FLAG},
            "c": either(
                "no",
                subnet({"output": linear("base:data")}),
                subnet({"a": linear("base:data", 2), "b": linear("a", 3), "output": evaluate("b", "source(0) * 3.")}),
            ),
            "output": {"class": "copy", "from": "c"},
            "prob": loss("c"),
        },
        expected=lambda v: 3 * _affine(v, "c/b", _affine(v, "c/a", v["data"]).tanh()).tanh(),
        trains=False,
    ),
    "branches by name": Case(
        {
            "x": linear("data"),
            "y": linear("data"),
            "yes": evaluate([], "tf.constant(True)", out_type=FLAG),
            "c": either("yes", "x", {"class": "combine", "kind": "add", "from": ["x", "y"]}),
            "output": {"class": "copy", "from": "c"},
            "both": {"class": "combine", "kind": "add", "from": ["c", "y"]},
            "prob": loss("both"),
        },
        expected=lambda v: _affine(v, "x", v["data"]).tanh(),
    ),
    "a condition of code in a loop": Case(
        _shown(
            {
                "x": linear(["data:source", "prev:output"]),
                "even": evaluate(":i", "tf.equal(source(0) % 2, 0)", out_type={"dtype": "bool"}),
                "output": either(
                    "even", evaluate("x", "source(0) + 1."), subnet({"output": {"class": "copy", "from": "base:x"}})
                ),
            }
        ),
        expected=lambda v: _alternating(v),
        moves=False,
    ),  # fmt: skip
    "a condition that is a layer dict": Case(
        {
            "c": either(
                {"class": "eval", "from": [], "eval": "tf.constant(1.) > 0.", "out_type": FLAG},
                {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh"},
                {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh"},
            ),
            "output": {"class": "copy", "from": "c"},
            "prob": loss("c"),
        },
        expected=lambda v: _affine(v, "c", v["data"]).tanh(),
    ),
    "a number of code": Case(
        {
            "c": evaluate([], "tf.constant(3.0)", out_type=SCALAR),
            "output": {"class": "combine", "kind": "mul", "from": ["data", "c"]},
            "prob": loss("output"),
        },
        expected=lambda v: 3 * v["data"],
    ),
    "a number of code in a loop": Case(
        _shown(
            {
                "c": evaluate([], "tf.constant(0.5)", out_type=SCALAR),
                "old": {"class": "combine", "kind": "mul", "from": ["prev:output", "c"]},
                "output": {"class": "combine", "kind": "add", "from": ["data:source", "old"]},
            }
        ),
        expected=lambda v: _decaying(v),
    ),
    "a masked sub-network that reads outside": Case(
        _shown(
            {
                **POSITIVE,
                "x": {"class": "rec_unstack", "from": "base:x"},
                "m": {
                    "class": "masked_computation",
                    "mask": "mask",
                    "from": "data:source",
                    "unit": subnet(
                        {
                            "l": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["data", "base:x"]},
                            "output": {"class": "copy", "from": "l"},
                        },
                        "data",
                    ),
                },
                "output": {"class": "copy", "from": "m"},
            }
        )
        | {"x": linear("data")},
        expected=_masked,
    ),
    "a masked sub-network that reads its own last frame": Case(
        _shown(
            {
                **POSITIVE,
                "m": {
                    "class": "masked_computation",
                    "mask": "mask",
                    "from": "data:source",
                    "unit": subnet({"a": linear(["data", "prev:a"]), "output": linear("a", 2)}, "data"),
                },
                "output": {"class": "copy", "from": "m"},
            }
        ),
        expected=lambda v: _masked_recurrence(v),
    ),
    "a masked layer in a circle": Case(
        _shown(
            {
                **POSITIVE,
                "m": {
                    "class": "masked_computation",
                    "mask": "mask",
                    "from": "prev:y",
                    "unit": {"class": "linear", "n_out": 3, "activation": "tanh"},
                },
                "y": linear(["m", "data:source"]),
                "output": {"class": "copy", "from": "y"},
            }
        )
    ),
    "a layer that shares with one that reads the loop": Case(
        {
            "a": loop(
                {
                    "s1": linear(["data:source", "prev:output"], 4, "tanh"),
                    "s2": linear("s1", 4, "tanh", reuse_params="base:b"),
                    "output": {"class": "combine", "kind": "add", "from": ["s1", "s2"], "n_out": 4},
                }
            ),
            "b": linear("a", 4, "tanh"),
            "output": {"class": "copy", "from": "b"},
            "prob": loss("b"),
        }
    ),
}


def _masked_recurrence(v):
    a, y, frames = torch.zeros(3, 3), torch.zeros(3, 2), []
    for x in v["data"].unbind(1):
        keep = x.sum(-1, keepdim=True) > 0
        a = torch.where(keep, _affine(v, "r/rec/m/a", torch.cat([x, a], -1)).tanh(), a)
        y = torch.where(keep, _affine(v, "r/rec/m/output", a).tanh(), y)
        frames.append(y)
    return torch.stack(frames, 1)


def _alternating(v):
    h, frames = torch.zeros(3, 3), []
    for t, x in enumerate(v["data"].unbind(1)):
        h = _affine(v, "r/rec/x", torch.cat([x, h], -1)).tanh() + (t % 2 == 0)
        frames.append(h)
    return torch.stack(frames, 1)


def _decaying(v):
    h, frames = torch.zeros(3, 4), []
    for x in v["data"].unbind(1):
        h = x + 0.5 * h
        frames.append(h)
    return torch.stack(frames, 1)
