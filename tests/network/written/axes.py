"""Loops over given axes, one step of them, and layers that run along the axis of a loop around them."""

import torch

from returnn_lite.tensor import Dim, single_step_dim
from tests.network.written.case import APART, IN, SEQUENCES, TIME, Case, choice, evaluate, linear, loop, loss

RANGE = Dim(None, "range")
COUNT = Dim(3, "count")
BEFORE = Dim(None, "before")
KEYS = {
    "data": {"dim": 4, "same_dim_tags_as": {"T": TIME, "F": IN}},
    "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"T": TIME}},
}


def _sums(v):
    return v["data"].cumsum(1)


def _shown(unit, source="data", **more):
    """A net whose output is that of the loop, with a loss on it."""
    return {"r": loop(unit, source, **more), "output": {"class": "copy", "from": "r"}, "prob": loss("r")}


def _scan(unit, **more):
    """A loop without source."""
    return _shown(unit, [], **more)


def _windows(v, size=3):
    """The frame behind the `size` - 1 before it: (B, T, W, F)."""
    return torch.nn.functional.pad(v["data"], (0, 0, size - 1, 0)).unfold(1, size, 1).transpose(2, 3)


def _summed_windows(v):
    return _windows(v).sum(2)


def _sums_over_features(v):
    """By the ticks of a loop over the features: (B, T, F) -> (F, …) summed over time."""
    lengths = torch.tensor([5, 3, 4]).unsqueeze(1)
    x = (v["data"] * (torch.arange(5) < lengths).unsqueeze(2)).sum(1)
    return x.cumsum(1)


ONE = {"var2": None, "add_var2_if_empty": False}
FRAME = {"class": "rec_unstack", "from": "base:data", "axis": TIME}
STATE = {"class": "combine", "kind": "add", "from": ["prev:output", "x"]}
CASES = {
    "a loop over the axis of the data": Case(_scan({"x": FRAME, "output": STATE}, axis=TIME), KEYS, _sums),
    "a loop over an axis that the batch has": Case(
        {
            "ones": linear("data", 4),
            "r": loop(
                {"t": {"class": "cast", "from": ":i", "dtype": "float32"}, "output": evaluate("t", "source(0) * 2.")},
                [],
                axis=TIME,
            ),
            "output": {"class": "combine", "kind": "add", "from": ["data", "r"]},
            "prob": loss("output"),
        },
        KEYS,
        lambda v: v["data"] + 2 * torch.arange(5.0).reshape(1, 5, 1),
        moves=True,
    ),
    "a loop over an axis with an end that does not count": Case(
        _scan(
            {
                "x": FRAME,
                "output": STATE,
                "m": {"class": "reduce", "mode": "max", "axis": "F", "from": "x"},
                "end": {"class": "compare", "kind": "greater", "from": "m", "value": -100.0},
            },
            axis=TIME,
            max_seq_len=2,
        ),
        KEYS,
        _sums,
    ),
    "a loop over a new axis until its end": Case(
        {
            "m": {"class": "reduce", "mode": "sum", "axis": "T", "from": "data"},
            "r": loop(
                {
                    "output": evaluate(["prev:output", "base:m"], "source(0) + tf.nn.relu(source(1))"),
                    "n": {"class": "reduce", "mode": "sum", "axis": "F", "from": "output"},
                    "end": {"class": "compare", "kind": "greater", "from": "n", "value": 1e9},
                },
                [],
                axis=RANGE,
                max_seq_len=4,
            ),
            "output": {"class": "reinterpret_data", "set_dim_tags": {"T": RANGE}, "from": "r"},
        },
        KEYS,
        trains=False,
    ),
    "a loop over an axis of fixed size": Case(
        {
            "m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
            "r": loop({"output": linear(["base:m", "prev:output"], 3)}, [], axis=COUNT),
            "last": {"class": "slice", "axis": COUNT, "slice_start": 2, "slice_end": 3, "from": "r"},
            "l": {"class": "squeeze", "axis": "dim:1", "from": "last"},
            "both": {"class": "combine", "kind": "add", "from": ["h", "l"]},
            "h": linear("data"),
            "output": {"class": "copy", "from": "both"},
            "prob": loss("both"),
        },
        KEYS,
        lambda v: _thrice(v),
    ),
    "a loop over the features": Case(
        {
            "m": {"class": "reduce", "mode": "sum", "axis": "T", "from": "data"},
            "r": loop({"x": {**FRAME, "from": "base:m", "axis": IN}, "output": STATE}, [], axis=IN),
            "output": {"class": "copy", "from": "r"},
        },
        KEYS,
        _sums_over_features,
        trains=False,
    ),
    "a declared axis": Case(
        _scan({"x": {"class": "rec_unstack", "from": "base:h", "declare_rec_time": True}, "output": STATE})
        | {"h": {"class": "copy", "from": "data"}},
        KEYS,
        _sums,
    ),
    "sums of the loop's axis": Case(
        _shown({"output": {"class": "cumsum", "from": "data:source", "axis": TIME}}), KEYS, _sums
    ),
    "sums of the time in a loop": Case(_shown({"output": {"class": "cumsum", "from": "data:source"}}), KEYS, _sums),
    "sums of a recurrence": Case(
        _shown(
            {
                "s": linear(["data:source", "prev:c"], 4),
                "c": {"class": "cumsum", "from": "s"},
                "output": {"class": "copy", "from": "c"},
            }
        ),
        KEYS,
        lambda v: _recurrent_sums(v),
    ),
    "sums of one step with a given state": Case(
        _shown(
            {
                "output": {
                    "class": "cumsum",
                    "from": "data:source",
                    "axis": single_step_dim,
                    "state": {"state": "prev:output"},
                }
            }
        ),
        KEYS,
        _sums,
    ),
    "sums with a summand": Case(
        _shown({"output": {"class": "cumsum", "from": "data:source", "additional_left_summand_per_element": 1.0}}),
        KEYS,
        lambda v: (v["data"] + 1).cumsum(1),
    ),
    "sums over the time outside": Case(
        {"output": {"class": "cumsum", "from": "data", "axis": "T"}, "prob": loss("output")}, KEYS, _sums
    ),
    "sums over the features, from the end": Case(
        {"output": {"class": "cumsum", "from": "data", "axis": "F", "reverse": True}, "prob": loss("output")},
        KEYS,
        lambda v: v["data"].flip(2).cumsum(2).flip(2),
    ),
    "a window and an LSTM": Case(
        {
            "w": {"class": "window", "window_size": 3, "from": "data"},
            "m": {"class": "merge_dims", "axes": ["dim:3", "F"], "keep_order": True, "from": "w"},
            "output": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "m"},
            "prob": loss("output"),
        },
        KEYS,
    ),
    "an LSTM along a window": Case(
        {
            "w": {"class": "window", "window_size": 3, "from": "data"},
            "l": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "axis": "dim:3", "from": "w"},
            "output": {"class": "reduce", "mode": "max", "axes": "stag:window", "from": "l"},
            "prob": loss("output"),
        },
        KEYS,
    ),
    "a window in a loop": Case(
        _shown(
            {
                "w": {"class": "window", "window_size": 3, "window_right": 0, "from": "data:source"},
                "output": {"class": "reduce", "mode": "sum", "axes": "stag:window", "from": "w"},
            }
        ),
        KEYS,
        _summed_windows,
    ),
    "a window of the loop's own frames, and an LSTM": Case(
        _shown(
            {
                "x": linear(["data:source", "prev:s"]),
                "w": {"class": "window", "window_size": 2, "window_right": 0, "axis": TIME, "from": "x"},
                "m": {"class": "merge_dims", "axes": "except_batch", "from": "w"},
                "s": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "m"},
                "output": {"class": "copy", "from": "s"},
            }
        ),
        KEYS,
    ),
    "a loop in a loop, over the encoder": Case(
        {
            "enc": linear("data", 3),
            "r": loop(
                {
                    "s": linear(["e", "prev:a"]),
                    "e": linear("data:classes", 2),
                    "a": {"class": "reduce", "mode": "mean", "axes": "T", "from": "inner"},
                    "inner": loop(
                        {
                            "q": {"class": "combine", "kind": "mul", "from": ["data:source", "base:s"]},
                            "output": linear(["q", "prev:output"], 3),
                        },
                        "base:enc",
                    ),
                    "output": {"class": "copy", "from": "a"},
                },
                [],
                target="classes",
            ),
            "output": {"class": "copy", "from": "r"},
            "prob": loss("r"),
        },
        SEQUENCES,
        lengths=APART,
    ),
    "all frames before, attended": Case(
        _shown(
            {
                "x": linear(["data:source", "prev:att"], 3),
                "all": {"class": "cum_concat", "from": "x", "out_spatial_dim": BEFORE},
                "e": {"class": "dot", "from": ["all", "x"], "reduce": "F", "var1": BEFORE, **ONE},
                "w": {"class": "softmax_over_spatial", "axis": BEFORE, "from": "e"},
                "att": {"class": "dot", "from": ["all", "w"], "reduce": BEFORE, "var1": "F", **ONE},
                "output": {"class": "copy", "from": "att"},
            }
        ),
        KEYS,
        lambda v: _attended(v),
    ),
    "positions of the ticks": Case(
        _shown(
            {
                "p": {"class": "positional_encoding", "add_to_input": True, "from": "data:source"},
                "output": linear(["p", "prev:output"]),
            }
        ),
        KEYS,
    ),
    "a choice frame by frame": Case(
        {
            "output": loop({"prob": loss(["data:source", "prev:e"]), "e": linear("output", 3), "output": choice()}),
        },
        KEYS,
        lambda v: v["classes"],
        search=True,
    ),
}


def _affine(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _thrice(v):
    lengths = torch.tensor([5, 3, 4])
    valid = (torch.arange(5) < lengths.unsqueeze(1)).unsqueeze(2)
    mean = (v["data"] * valid).sum(1) / lengths.unsqueeze(1)
    h = torch.zeros(3, 3)
    for _ in range(3):
        h = _affine(v, "r/rec/output", torch.cat([mean, h], -1)).tanh()
    return _affine(v, "h", v["data"]).tanh() + h.unsqueeze(1)


def _recurrent_sums(v):
    total, frames = torch.zeros(3, 4), []
    for x in v["data"].unbind(1):
        total = total + _affine(v, "r/rec/s", torch.cat([x, total], -1)).tanh()
        frames.append(total)
    return torch.stack(frames, 1)


def _attended(v):
    att, seen, frames = torch.zeros(3, 3), [], []
    for x in v["data"].unbind(1):
        q = _affine(v, "r/rec/x", torch.cat([x, att], -1)).tanh()
        seen.append(q)
        whole = torch.stack(seen, 1)
        att = ((whole @ q.unsqueeze(2)).softmax(1) * whole).sum(1)
        frames.append(att)
    return torch.stack(frames, 1)
