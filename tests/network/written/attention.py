"""Attention decoders, Tacotron, transformers and language models."""

import torch
from torch.nn import functional

from returnn_lite.tensor import Dim
from tests.network.written.case import APART, END, FRAMEWISE, SEQUENCES, Case, choice, evaluate, linear, loop, loss

HISTORY = Dim(None, "history")
ENCODER = {
    "enc": linear("data", 4),
    "enc_ctx": linear("enc", 3, None),
}


def decoder(unit, **more):
    """A net whose output are the labels of a decoder over the encoder's frames."""
    labels = {"output": choice(), "end": END, "emb": linear("output", 2, None, initial_output=0)}
    return {
        **ENCODER,
        "output": loop({**labels, **unit}, [], target="classes", max_seq_len="max_len_from('base:enc')", **more),
    }


def attention(unit, **more):
    return Case(decoder(unit, **more), SEQUENCES, lengths=APART, search=True, expected=lambda v: v["classes"])


CELL = {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["prev:c", "prev:emb"]}
CONTEXT = {"class": "generic_attention", "base": "base:enc", "weights": "w"}
ENERGY = {
    "s": CELL,
    "st": linear("s", 3, None, with_bias=False),
    "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
    "e": linear("e_tanh", 1, None, with_bias=False),
    "w": {"class": "softmax_over_spatial", "from": "e"},
    "c": CONTEXT,
    "readout": linear(["s", "prev:emb", "c"], 4),
    "prob": loss("readout"),
}
ACCUMULATED = {
    "acc": evaluate(["prev:acc", "w"], "source(0) + source(1)", out_type={"dim": 1, "shape": (None, 1)}),
}
PADDED = {
    "padl": {"class": "pad", "axes": "stag:time", "from": "prev:acc", "padding": (2, 0), "value": 1},
    "padr": {"class": "pad", "axes": "stag:time", "from": "padl", "padding": (0, 2), "value": 0},
    "conv": {"class": "conv", "from": "padr", "filter_size": (5,), "n_out": 2, "padding": "valid"},
    "loc": linear("conv", 3, None),
}
SUM_OF_THREE = {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "loc", "st"]}


def _located(v):
    """Tacotron's location sensitive attention by hand: the attended frames."""
    lengths, labels = [5, 3, 4], v["classes"]
    rows = []
    for x, frames, targets in zip(v["data"], lengths, labels, strict=True):
        enc = _affine(v, "enc", x[:frames]).tanh()
        ctx = _affine(v, "enc_ctx", enc)
        h, c, acc, out = torch.zeros(3), torch.zeros(4), torch.zeros(frames), []
        cell, label = torch.zeros(3), 0
        for target in targets:
            emb = v["out/rec/emb/W"][label] + v["out/rec/emb/b"] if label is not None else torch.zeros(2)
            gates = torch.cat([c, emb, h]) @ v["out/rec/s/rec/lstm_cell/kernel"] + v["out/rec/s/rec/lstm_cell/bias"]
            i, j, f, o = gates.chunk(4)
            cell = (f + 1).sigmoid() * cell + i.sigmoid() * j.tanh()
            h = o.sigmoid() * cell.tanh()
            padded = functional.pad(functional.pad(acc, (2, 0), value=1.0), (0, 2))
            conv = padded.unfold(0, 5, 1) @ v["out/rec/conv/W"][:, 0]
            e = (ctx + _affine(v, "out/rec/loc", conv) + h @ v["out/rec/st/W"]).tanh() @ v["out/rec/e/W"]
            w = e[:, 0].softmax(0)
            acc, c, label = acc + w, w @ enc, int(target)
            out.append(c)
        rows.append(torch.stack(out))
    return torch.stack(rows)


def _self_attended(v):
    """Additive attention of each frame over all frames of its sequence."""
    x, lengths = v["data"], torch.tensor([5, 3, 4])
    enc = _affine(v, "enc", x).tanh()
    q = _affine(v, "output/rec/q", x)
    e = _affine(v, "output/rec/e", (_affine(v, "enc_ctx", enc).unsqueeze(1) + q.unsqueeze(2)).tanh())[..., 0]
    e = e.masked_fill((torch.arange(5) >= lengths.unsqueeze(1)).unsqueeze(1), float("-inf"))
    return _affine(v, "output/rec/output", torch.cat([e.softmax(-1) @ enc, x], -1)).tanh()


def _affine(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _shown(layers, name):
    """The decoder's layer `name`, as the net's output."""
    out = {**layers["output"], "unit": {**layers["output"]["unit"]}}
    out["unit"][name] = {**out["unit"][name], "is_output_layer": True}
    return {**{k: v for k, v in layers.items() if k != "output"}, "out": out,
            "output": {"class": "copy", "from": f"out/{name}"}}  # fmt: skip


LOCATED = {**ENERGY, **ACCUMULATED, **PADDED, "e_in": SUM_OF_THREE,
           "emb": linear("output", 2, None, initial_output="apply(0)")}  # fmt: skip
SELF = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 4, "attention_left_only": True}


def _block(name, source, attention):
    """A block of a transformer: attention and feed forward, each behind a layer norm, and added."""
    return {
        f"{name}_norm": {"class": "layer_norm", "from": source},
        f"{name}_att": {**attention, "from": f"{name}_norm"},
        f"{name}_proj": linear(f"{name}_att", 4, None, with_bias=False),
        f"{name}_sum": {"class": "combine", "kind": "add", "from": [source, f"{name}_proj"]},
        f"{name}_norm2": {"class": "layer_norm", "from": f"{name}_sum"},
        f"{name}_ff1": linear(f"{name}_norm2", 6, "relu"),
        f"{name}_ff2": linear(f"{name}_ff1", 4, None),
        name: {"class": "combine", "kind": "add", "from": [f"{name}_sum", f"{name}_ff2"]},
    }


def _heads(source):
    """(B, …, 4) -> (B, …, 2 heads, 2)"""
    return {"class": "split_dims", "axis": "F", "dims": (2, 2), "from": source}


CROSS = {
    "q0": linear("one", 4, None, with_bias=False),
    "q": _heads("q0"),
    "energy": {"class": "dot", "red1": "static:-1", "red2": "static:-1", "var1": "T", "var2": "T?",
               "from": ["base:key", "q"]},
    "weights": {"class": "softmax_over_spatial", "from": "energy", "energy_factor": 2**-0.5},
    "att0": {"class": "generic_attention", "base": "base:value", "weights": "weights"},
    "att": {"class": "merge_dims", "axes": "static", "from": "att0"},
}  # fmt: skip
TRANSFORMER = {
    **ENCODER,
    "key0": linear("enc", 4, None),
    "key": _heads("key0"),
    "value0": linear("enc", 4, None),
    "value": _heads("value0"),
    "output": loop(
        {
            "output": choice(),
            "end": END,
            "emb0": linear("prev:output", 4, None, with_bias=False),
            "emb": {"class": "eval", "from": "emb0", "eval": "source(0) * 2."},
            "pos": {"class": "positional_encoding", "add_to_input": True, "from": "emb"},
            **_block("one", "pos", SELF),
            **CROSS,
            "mixed": {"class": "combine", "kind": "add", "from": ["one", "att"]},
            "last": {"class": "layer_norm", "from": "mixed"},
            "prob": loss("last"),
        },
        [],
        target="classes",
        max_seq_len=4,
    ),
}


def _language_model(unit, **more):
    """Labels of which each predicts the next one, as the loop of a decoder without encoder."""
    labels = {"delayed": {"class": "copy", "from": "prev:output", "initial_output": 0}, "output": choice()}
    return {
        "out": loop({**labels, **unit}, [], target="classes", max_seq_len=4, **more),
        "output": {"class": "copy", "from": "out"},
    }


def _causal(v):
    """A language model of one self attention by its formula, whole sequences at once: log probabilities."""
    x = v["out/rec/emb/W"][functional.pad(v["classes"].long(), (1, -1))]
    qkv = (x @ v["out/rec/att/QKV"]).unflatten(-1, (2, 6))
    q, k, value = qkv.split(2, -1)
    e = torch.einsum("bqhd,bkhd->bhqk", q * 2**-0.5, k)
    e = e.masked_fill(torch.ones(e.shape[-2:]).triu(1).bool(), float("-inf"))
    att = torch.einsum("bhqk,bkhd->bqhd", e.softmax(-1), value).flatten(2)
    return (x + att) @ v["out/rec/prob/W"] + v["out/rec/prob/b"]


CASES = {
    "additive attention": attention(
        {**ENERGY, "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "st"]}}
    ),
    "attention with its weights fed back": attention(
        {
            **ENERGY,
            "e_in": SUM_OF_THREE,
            "loc": linear("prev:acc", 3, None, with_bias=False),
            "acc": evaluate(
                ["prev:acc", "w", "base:fert"],
                "source(0) + source(1) * source(2) * 0.5",
                out_type={"dim": 1, "shape": (None, 1)},
            ),
        }
    ),
    "location aware attention": attention(LOCATED),
    "location aware attention, its context": Case(
        _shown(decoder(LOCATED), "c"), SEQUENCES, lengths=APART, expected=_located, search=False
    ),
    "location aware attention by a same convolution": attention(
        {
            **ENERGY,
            **ACCUMULATED,
            "e_in": SUM_OF_THREE,
            "conv": {"class": "conv", "from": "prev:acc", "filter_size": (3,), "n_out": 2, "padding": "same"},
            "loc": linear("conv", 3, None),
        }
    ),
    "dot attention with auto squeeze": attention(
        {
            "s": CELL,
            "st": linear("s", 3, None),
            "e": {
                "class": "dot",
                "red1": "F",
                "red2": "F",
                "var1": "T",
                "var2": "T?",
                "from": ["base:enc_ctx", "st"],
                "add_var2_if_empty": False,
            },
            "w": {"class": "softmax_over_spatial", "from": "e"},
            "c": CONTEXT,
            "prob": loss(["s", "c"]),
        }
    ),
    "several heads by split_dims": attention(
        {
            "s": CELL,
            "st": linear("s", 3, None),
            "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "st"]},
            "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
            "e": linear("e_tanh", 2, None),
            "w": {"class": "softmax_over_spatial", "from": "e"},
            "c0": {"class": "generic_attention", "base": "base:enc", "weights": "w"},
            "c": {"class": "merge_dims", "axes": "except_batch", "from": "c0"},
            "prob": loss(["s", "c"]),
        }
    ),
    "a window of positions that move on": attention(
        {
            "s": CELL,
            "step": linear("s", 1, "sigmoid"),
            "at": {"class": "combine", "kind": "add", "from": ["prev:at", "step"]},
            "c0": {"class": "gauss_window_attention", "window_size": 3, "std": 1.0, "base": "base:enc", "from": "at"},
            "c": {"class": "copy", "from": "c0"},
            "prob": loss(["s", "c"]),
        }
    ),
    "monotonic chunks": attention(
        {
            **ENERGY,
            "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "st"]},
            "p": {"class": "activation", "activation": "sigmoid", "from": "e"},
            "rest": evaluate("p", "1. - source(0)"),
            "log_rest": evaluate("rest", "tf.math.log(tf.maximum(source(0), 1e-10))"),
            "sums": {"class": "cumsum", "axis": "stag:time", "from": "log_rest"},
            "reach": evaluate(["p", "sums", "log_rest"], "source(0) * tf.exp(source(1) - source(2))"),
            "sofar": {"class": "cumsum", "axis": "stag:time", "from": "prev:w"},
            "kept": {"class": "combine", "kind": "mul", "from": ["reach", "sofar"]},
            "logits": evaluate(["e", "kept"], "source(0) + source(1)"),
            "w": {"class": "softmax_over_spatial", "from": "logits"},
        }
    ),
    "attention within a window": attention(
        {
            **ENERGY,
            "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "st"]},
            "start": evaluate(":i", "tf.minimum(source(0), 1)"),
            "w": {"class": "softmax_over_spatial", "from": "e", "window_start": "start", "window_size": 2},
        }
    ),
    "a speech synthesis decoder": Case(
        {
            "enc": linear("data", 4),
            "enc_ctx": linear("enc", 3, None),
            "out": loop(
                {
                    "pre1": linear("prev:frame", 3, "relu"),
                    "pre2": linear("pre1", 3, "relu"),
                    "s": {
                        "class": "rnn_cell",
                        "unit": "zoneoutlstm",
                        "n_out": 3,
                        "from": ["pre2", "prev:c"],
                        "unit_opts": {"zoneout_factor_cell": 0.1, "zoneout_factor_output": 0.1},
                    },
                    "st": linear("s", 3, None),
                    **ACCUMULATED,
                    "conv": {
                        "class": "conv",
                        "from": "prev:acc",
                        "filter_size": (3,),
                        "n_out": 2,
                        "padding": "same",
                        "with_bias": False,
                    },
                    "loc": linear("conv", 3, None, with_bias=False),
                    "e_in": SUM_OF_THREE,
                    "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
                    "e": linear("e_tanh", 1, None),
                    "w": {"class": "softmax_over_spatial", "from": "e"},
                    "c": CONTEXT,
                    "frame": linear(["s", "c"], 2, None, loss="mse", target="mel"),
                    "stop": linear(["s", "c"], 1, "sigmoid"),
                    "end0": {"class": "compare", "kind": "greater", "value": 0.5, "from": "stop"},
                    "end": {"class": "squeeze", "axis": "F", "from": "end0"},
                    "output": {"class": "copy", "from": "frame"},
                },
                [],
                target="mel",
                max_seq_len="max_len_from('base:enc') * 3",
                include_eos=True,
            ),
            "post": {
                "class": "conv",
                "filter_size": (3,),
                "padding": "same",
                "n_out": 2,
                "activation": "tanh",
                "from": "out",
            },
            "output": {"class": "combine", "kind": "add", "from": ["out", "post"], "loss": "mse", "target": "mel"},
        },
        {"data": {"dim": 5, "sparse": True}, "mel": {"dim": 2}},
        lengths={"data": [5, 3, 4], "mel": [6, 4, 2]},
    ),
    "a transformer": Case(TRANSFORMER, SEQUENCES, lengths=APART, search=True, expected=lambda v: v["classes"]),
    "an LSTM language model": Case(
        _language_model(
            {
                "emb": linear("delayed", 3, None, with_bias=False),
                "l1": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "emb"},
                "l2": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["l1", "emb"]},
                "prob": loss("l2"),
                "end": END,
            }
        ),
        search=True,
    ),
    "a language model of one self attention": Case(
        {
            **_language_model(
                {
                    "emb": linear("delayed", 4, None, with_bias=False),
                    "att": {**SELF, "from": "emb"},
                    "sum": {"class": "combine", "kind": "add", "from": ["emb", "att"]},
                    "prob": loss("sum", is_output_layer=True),
                    "end": END,
                }
            ),
            "output": evaluate("out/prob", "tf.math.log(source(0))"),
        },
        expected=lambda v: _causal(v).log_softmax(-1),
    ),
    "a deep transformer language model": Case(
        _language_model(
            {
                "emb": linear("delayed", 4, None, with_bias=False),
                **_block("b0", "emb", SELF),
                **_block("b1", "b0", SELF),
                **_block("b2", "b1", {**SELF, "num_heads": 1}),
                "norm": {"class": "layer_norm", "from": "b2"},
                "prob": loss("norm"),
                "end": END,
            }
        ),
        search=True,
    ),
    "relative positions": Case(
        _language_model(
            {
                "emb": linear("delayed", 4, None, with_bias=False),
                "rel": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 3, "from": "emb"},
                "att": {**SELF, "from": "emb", "key_shift": "rel"},
                "prob": loss("att"),
                "end": END,
            }
        ),
        search=True,
    ),
    "self attention over a history": Case(
        _language_model(
            {
                "emb": linear("delayed", 4, None),
                "q": linear("emb", 4, None),
                "k0": linear("emb", 4, None),
                "k": {"class": "cum_concat", "from": "k0", "out_spatial_dim": HISTORY},
                "v0": linear("emb", 4, None),
                "v": {"class": "cum_concat", "from": "v0", "out_spatial_dim": HISTORY},
                "e": {
                    "class": "dot",
                    "reduce": "F",
                    "var1": HISTORY,
                    "var2": None,
                    "add_var2_if_empty": False,
                    "from": ["k", "q"],
                },
                "w": {"class": "softmax_over_spatial", "axis": HISTORY, "from": "e"},
                "att": {
                    "class": "dot",
                    "reduce": HISTORY,
                    "var1": "F",
                    "var2": None,
                    "add_var2_if_empty": False,
                    "from": ["v", "w"],
                },
                "prob": loss("att"),
                "end": END,
            }
        ),
        search=True,
    ),
    "an encoder of self attention with masks": Case(
        {
            "pos": {"class": "positional_encoding", "add_to_input": True, "from": "data"},
            **_block("b0", "pos", {**SELF, "attention_left_only": False}),
            "output": {"class": "copy", "from": "b0"},
            "prob": loss("b0"),
        },
        moves=False,
    ),
    "attention over the frames of the loop itself": Case(
        {
            **ENCODER,
            "output": loop(
                {
                    "q": linear("data:source", 3, None),
                    "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "q"]},
                    "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
                    "e": linear("e_tanh", 1, None),
                    "w": {"class": "softmax_over_spatial", "from": "e"},
                    "c": CONTEXT,
                    "output": linear(["c", "data:source"], 3),
                },
            ),
            "prob": loss("output"),
        },
        expected=lambda v: _self_attended(v),
    ),
    "a convolution over attention weights": Case(
        {
            **_shown(
                decoder({**ENERGY, "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "st"]}}), "w"
            ),
            "output": {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 2, "from": "out/w"},
            "total": {"class": "reduce", "mode": "mean", "axes": "except_batch", "from": "output", "loss": "as_is"},
        },
        SEQUENCES,
        lengths=APART,
    ),
    "chunks of the encoder, attended": Case(
        {
            **ENCODER,
            "windows": {"class": "window", "window_size": 3, "from": "enc"},
            "output": loop(
                {
                    "chunk": {"class": "rec_unstack", "from": "base:windows", "declare_rec_time": True},
                    "s": {**CELL, "from": ["prev:c"]},
                    "q": linear("s", 4, None),
                    "e": {
                        "class": "dot",
                        "reduce": "F",
                        "var1": "stag:window",
                        "var2": None,
                        "add_var2_if_empty": False,
                        "from": ["chunk", "q"],
                    },
                    "w": {"class": "softmax_over_spatial", "axis": "stag:window", "from": "e"},
                    "c": {
                        "class": "dot",
                        "reduce": "stag:window",
                        "var1": "F",
                        "var2": None,
                        "add_var2_if_empty": False,
                        "from": ["chunk", "w"],
                    },
                    "output": linear(["s", "c"], 3),
                },
                [],
            ),
            "prob": loss("output"),
        },
        FRAMEWISE,
    ),
}
CASES["attention with its weights fed back"].layers["fert"] = linear("enc", 1, "sigmoid", with_bias=False)
