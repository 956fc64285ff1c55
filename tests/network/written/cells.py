"""Recurrent cells that configs write out layer by layer, and cells inside of loops."""

import torch

from returnn_lite.tensor import single_step_dim
from tests.network.written.case import Case, evaluate, linear, loop, loss

H = 3


def _gates(source, names, n_out=H):
    return {name: linear(source, n_out, act) for name, act in names.items()}


LSTM_GATES = {"i": "sigmoid", "f": "sigmoid", "o": "sigmoid", "z": "tanh"}
CELL_STATE = evaluate(["i", "z", "f", "prev:c"], "source(0) * source(1) + source(2) * source(3)")
EXPLICIT_LSTM = {
    "in": {"class": "copy", "from": ["prev:output", "data:source"]},
    **_gates("in", LSTM_GATES),
    "c": CELL_STATE,
    "output": evaluate(["o", "c"], "source(0) * tf.tanh(source(1))"),
}
PACKED_LSTM = {
    "gates": linear(["prev:output", "data:source"], 4 * H, None),
    "s": {"class": "split", "from": "gates", "num_splits": 4},
    "i": {"class": "activation", "activation": "sigmoid", "from": "s/0"},
    "f": {"class": "activation", "activation": "sigmoid", "from": "s/1"},
    "o": {"class": "activation", "activation": "sigmoid", "from": "s/2"},
    "z": {"class": "activation", "activation": "tanh", "from": "s/3"},
    "c": CELL_STATE,
    "output": evaluate(["o", "c"], "source(0) * tf.tanh(source(1))"),
}


def _affine(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _lstm(gates):
    def run(v):
        x = v["data"]
        h = c = torch.zeros(x.shape[0], H)
        frames = []
        for t in range(x.shape[1]):
            i, f, o, z = gates(v, torch.cat([h, x[:, t]], -1))
            c = i.sigmoid() * z.tanh() + f.sigmoid() * c
            h = o.sigmoid() * c.tanh()
            frames.append(h)
        return torch.stack(frames, 1)

    return run


def _explicit(v, x):
    return [_affine(v, f"r/rec/{name}", x) for name in "ifoz"]


def _packed(v, x):
    return _affine(v, "r/rec/gates", x).chunk(4, -1)


EXPLICIT_GRU = {
    "r": linear(["data:source", "prev:output"], H, "sigmoid"),
    "u": linear(["data:source", "prev:output"], H, "sigmoid"),
    "reset": {"class": "combine", "kind": "mul", "from": ["r", "prev:output"]},
    "n": linear(["data:source", "reset"], H, "tanh"),
    "output": evaluate(["u", "prev:output", "n"], "source(0) * source(1) + (1. - source(0)) * source(2)"),
}


def _gru(v):
    x = v["data"]
    h, frames = torch.zeros(x.shape[0], H), []
    for t in range(x.shape[1]):
        both = torch.cat([x[:, t], h], -1)
        r, u = (_affine(v, f"r/rec/{name}", both).sigmoid() for name in "ru")
        n = _affine(v, "r/rec/n", torch.cat([x[:, t], r * h], -1)).tanh()
        h = u * h + (1 - u) * n
        frames.append(h)
    return torch.stack(frames, 1)


def _residual(v):
    x = v["data"]
    h, frames = torch.zeros(x.shape[0], 4), []
    for t in range(x.shape[1]):
        h = h + _affine(v, "r/rec/l", torch.cat([x[:, t], h], -1)).relu()
        frames.append(h)
    return torch.stack(frames, 1)


def _native(v):
    """The LSTM of one tick, whose input is the frame and its own last output."""
    x = v["data"]
    h = c = torch.zeros(x.shape[0], H)
    frames = []
    for t in range(x.shape[1]):
        gates = torch.cat([x[:, t], h], -1) @ v["r/rec/s/rec/W"] + h @ v["r/rec/s/rec/W_re"] + v["r/rec/s/rec/b"]
        a, i, f, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * a.tanh()
        h = o.sigmoid() * c.tanh()
        frames.append(h)
    return torch.stack(frames, 1)


def _shown(unit, n_out=H, **more):
    """A net whose output is that of the loop, with a loss beside it."""
    return {"r": loop(unit, **more), "output": {"class": "copy", "from": "r"}, "prob": loss("r")}


SINGLE = {"class": "rec", "axis": single_step_dim, "n_out": H}
CASES = {
    "an LSTM of four linear layers": Case(_shown(EXPLICIT_LSTM), expected=_lstm(_explicit)),
    "an LSTM of one linear layer, split": Case(_shown(PACKED_LSTM), expected=_lstm(_packed)),
    "a GRU of linear layers": Case(_shown(EXPLICIT_GRU), expected=_gru),
    "a residual recurrence": Case(
        _shown(
            {
                "in": {"class": "copy", "from": ["data:source", "prev:output"]},
                "l": linear("in", 4, "relu"),
                "output": {"class": "combine", "kind": "add", "from": ["prev:output", "l"]},
            }
        ),
        expected=_residual,
    ),
    "nativelstm that reads itself": Case(
        _shown(
            {
                "s": {"class": "rec", "unit": "nativelstm", "n_out": H, "from": ["data:source", "prev:s"]},
                "output": {"class": "copy", "from": "s"},
            }
        ),
        expected=_native,
    ),
    "nativelstm2 with its state as layers": Case(
        _shown(
            {
                "in": {"class": "copy", "from": ["data:source", "prev:h"]},
                "s": {**SINGLE, "unit": "nativelstm2", "from": "in", "state": {"h": "prev:h", "c": "prev:c"}},
                "h": {"class": "get_last_hidden_state", "from": "s", "key": "h", "n_out": H},
                "c": {"class": "get_last_hidden_state", "from": "s", "key": "c", "n_out": H},
                "output": {"class": "copy", "from": "s"},
            }
        ),
        expected=_native,
    ),
    "a cell whose state another layer reads": Case(
        _shown(
            {
                "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": H, "from": ["data:source", "prev:out"]},
                "c": {"class": "get_last_hidden_state", "from": "prev:s", "key": "c", "n_out": H},
                "out": linear(["s", "c"]),
                "output": {"class": "copy", "from": "out"},
            }
        )
    ),
    "a normalised cell with a gate": Case(
        _shown(
            {
                "x": {"class": "copy", "from": ["prev:y", "data:source"]},
                "a": linear("x", 2 * H, None),
                "norm": {"class": "layer_norm", "from": "a"},
                "g": {"class": "gating", "from": "norm", "activation": "tanh"},
                "y": {"class": "combine", "kind": "add", "from": ["g", "prev:y"]},
                "output": {"class": "copy", "from": "y"},
            }
        )
    ),
    "two layers that read each other": Case(
        _shown(
            {
                "low": linear(["data:source", "prev:high"]),
                "high": linear(["low", "prev:high", "prev:low"], 2),
                "output": {"class": "copy", "from": ["low", "high"]},
            }
        )
    ),
    "parts that change places until the end": Case(
        {
            "r": loop(
                {
                    "x": {"class": "copy", "from": "prev:y", "initial_output": "ones"},
                    "s": {"class": "split", "from": "x", "size_splits": [1, 3]},
                    "y": {"class": "copy", "from": ["s/1", "s/0"], "initial_output": "base:first"},
                    "output": {"class": "eval", "from": "y", "eval": "source(0) * 2."},
                    "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "output"},
                    "end": {"class": "compare", "kind": "greater", "from": "sum", "value": 100.0},
                },
                [],
                max_seq_len=6,
            ),
            "first": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
            "output": {"class": "copy", "from": "r"},
        },
        trains=False,
        expected=lambda v: _rotated(v),
    ),
    "a cell of zoneout in a loop": Case(
        _shown(
            {
                "s": {
                    "class": "rnn_cell",
                    "unit": "zoneoutlstm",
                    "unit_opts": {"zoneout_factor_cell": 0.15, "zoneout_factor_output": 0.05},
                    "n_out": H,
                    "from": ["data:source", "prev:s"],
                },
                "output": {"class": "copy", "from": "s"},
            }
        )
    ),
    "an initial state from outside": Case(
        {
            "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
            "h0": linear("mean"),
            "c0": linear("mean", activation=None),
            "r": loop(
                {
                    "s": {
                        "class": "rnn_cell",
                        "unit": "LSTMBlock",
                        "n_out": H,
                        "from": ["data:source", "prev:s"],
                        "initial_state": {"h": "base:h0", "c": "base:c0"},
                    },
                    "output": {"class": "copy", "from": "s"},
                }
            ),
            "output": {"class": "copy", "from": "r"},
            "prob": loss("r"),
        }
    ),
    "one step outside of loops": Case(
        {
            "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
            "l": linear("mean"),
            "s": {**SINGLE, "unit": "nativelstm2", "from": "l", "state": {"h": "l", "c": "l"}},
            "both": {"class": "combine", "kind": "add", "from": ["h", "s"]},
            "h": linear("data"),
            "output": {"class": "copy", "from": "both"},
            "prob": loss("both"),
        },
        expected=lambda v: _one_step(v),
    ),
}


def _rotated(v):
    lengths = torch.tensor([5, 3, 4])
    valid = (torch.arange(5) < lengths.unsqueeze(1)).unsqueeze(2)
    x = (v["data"] * valid).sum(1) / lengths.unsqueeze(1)
    frames = []
    for _ in range(6):
        x = torch.cat([x[:, 1:], x[:, :1]], -1)
        frames.append(2 * x)
    return torch.stack(frames, 1)


def _one_step(v):
    lengths = torch.tensor([5, 3, 4])
    valid = (torch.arange(5) < lengths.unsqueeze(1)).unsqueeze(2)
    mean = (v["data"] * valid).sum(1) / lengths.unsqueeze(1)
    state = _affine(v, "l", mean).tanh()
    a, i, f, o = (state @ v["s/rec/W"] + state @ v["s/rec/W_re"] + v["s/rec/b"]).chunk(4, -1)
    c = f.sigmoid() * state + i.sigmoid() * a.tanh()
    return _affine(v, "h", v["data"]).tanh() + (o.sigmoid() * c.tanh()).unsqueeze(1)
