"""Nets as programs write them: sub-networks without sources, all axes as Dims, parameters as variables.

Rows as in `axis_nets.py`.
"""

import numpy as np

from returnn_lite.compat.config_dims import FeatureDim, SpatialDim, batch_dim, single_step_dim
from tests.network.axis_nets import CLASSES, DATA, INPUT, LABELS, TAGGED, TIME, ends, of, row

BATCH_TIME = {batch_dim, TIME}
HIDDEN, WIDE, HALF = FeatureDim("hidden", 4), FeatureDim("wide", 6), FeatureDim("half", 2)
LABEL_TIME = SpatialDim("other")
SPOKEN = {"data": DATA, "classes": {**CLASSES, "dim_tags": [batch_dim, LABEL_TIME]}}  # fewer labels than frames
HEADS, KEYS, SEEN, STRIDED = SpatialDim("heads", 2), SpatialDim("keys"), SpatialDim("seen"), SpatialDim("strided")
STATE = FeatureDim("state", 3)


def param(*dims, init=1.0, **options):
    return {"class": "variable", "shape": list(dims), "param_name": "param", "init": init, **options}


def module(layers, **options):
    return {"class": "subnetwork", "from": [], "subnetwork": layers, **options}


def linear(source, n_in, n_out, axes=BATCH_TIME):
    shape = axes | {n_out}
    layers = {
        "dot": of("dot", [source, "weight"], reduce=n_in, out_shape=shape),
        "weight": param(n_in, n_out),
        "bias": param(n_out, init=0.5),
        "output": of("combine", ["dot", "bias"], kind="add", out_shape=shape),
    }
    return module(layers, out_shape=shape)


def outputs(**layers):
    """Parameters that are outputs of layers."""
    return {"map": {name: {"layer_output": layer} for name, layer in layers.items()}}


def total(x):
    return x.sum(-1, keepdims=True)


ATTENTION = {
    "q": of("split_dims", "base:x", axis=INPUT, dims=(HEADS, HALF)),
    "k": of("cum_concat", "q", out_spatial_dim=SEEN),
    "e": of("dot", ["q", "k"], reduce=HALF),
    "w": of("softmax_over_spatial", "e", axis=SEEN, energy_factor=0.5),
    "c": of("dot", ["w", "k"], reduce=SEEN),
    "output": of("merge_dims", "c", axes=[HEADS, HALF], keep_order=True, out_dim=HIDDEN),
}
FRAME = {"class": "rec_unstack", "axis": TIME, "from": "base:data:data"}
NORM = {
    "mean": of("reduce", "base:data:data", mode="mean", axis=INPUT, out_shape=BATCH_TIME),
    "difference": of("combine", ["base:data:data", "mean"], kind="sub", out_shape=BATCH_TIME | {INPUT}),
    "square": module({"output": of("eval", "base:difference", eval="tf.square(source(0))")}),
    "variance": of("reduce", "square", mode="mean", axis=INPUT),
    "scale": of("eval", "variance", eval="tf.math.rsqrt(source(0) + 1e-6)"),
    "output": of("combine", ["difference", "scale"], kind="mul"),
}
LSTM = {
    "w": param(INPUT, 4 * STATE, init=0.1),
    "w_re": param(STATE, 4 * STATE, init=0.1),
    "b": param(4 * STATE, init=0.0),
    "rec": of(
        "rec", "base:data:data", unit="lstm", axis=TIME, in_dim=INPUT, out_dim=STATE,
        reuse_params=outputs(W="w", W_re="w_re", b="b"),
    ),
    "h": of("get_last_hidden_state", "rec", key="h", out_dim=STATE),
    "output": of("copy", "rec"),
}  # fmt: skip
STATISTICS = {
    "mean": param(INPUT, init=0.5, trainable=False),
    "variance": param(INPUT, init=4.0, trainable=False),
    "gamma": param(INPUT, init=2.0),
    "beta": param(INPUT, init=1.0),
    "output": of(
        "batch_norm", "base:data:data", in_dim=INPUT, param_version=2, masked_time=True, epsilon=0.0,
        reuse_params=outputs(**{f"batch_norm/v2_{n}": n for n in ("mean", "variance", "gamma", "beta")}),
    ),
}  # fmt: skip
DECODER = {
    "table": param(LABELS, WIDE, init="glorot_uniform"),
    "emb": of("gather", "table", position="prev:output", axis=LABELS, out_shape={batch_dim, WIDE}),
    "s": of("rnn_cell", ["emb", "prev:att"], unit="standardlstm", n_out=4),
    "q": of("linear", "s", out_dim=INPUT),
    "e": of("dot", ["base:data:data", "q"], reduce=INPUT),
    "w": of("softmax_over_spatial", "e", axis=TIME),
    "att": of("dot", ["w", "base:data:data"], reduce=TIME),
    "p": of("softmax", ["s", "att"], out_dim=LABELS, loss="ce", target="classes"),
    "output": of("choice", "p", target="classes", beam_size=3, initial_output=0),
    "end": of("compare", "output", kind="equal", value=0),
}
SHARED_AXIS = {"data": DATA, "classes": CLASSES}


def loop(unit, **options):
    return {"class": "rec", "from": [], "unit": unit, **options}


MODULE_ROWS = [
    row(
        "linear",
        {"a": linear("base:data:data", INPUT, WIDE), "output": of("copy", "a")},
        TAGGED,
        lambda d: ends(np.repeat(total(d["data"]) + 0.5, 6, -1)),
        behavior_version=20,
    ),
    row(
        "a chain",
        {"a": linear("base:data:data", INPUT, WIDE), "b": linear("base:a", WIDE, HIDDEN), "output": of("copy", "b")},
        TAGGED,
        lambda d: ends(np.repeat(6 * (total(d["data"]) + 0.5) + 0.5, 4, -1)),
        behavior_version=12,
    ),
    row(
        "modules in modules",
        {
            "a": module({"b": linear("base:base:data:data", INPUT, WIDE), "output": of("copy", "b")}),
            "output": of("copy", "a"),
        },
        TAGGED,
        lambda d: ends(np.repeat(total(d["data"]) + 0.5, 6, -1)),
        behavior_version=12,
    ),
    row(
        "layer norm",
        {"a": module(NORM), "output": of("copy", "a")},
        TAGGED,
        lambda d: ends(
            (d["data"] - d["data"].mean(-1, keepdims=True)) / np.sqrt(d["data"].var(-1, keepdims=True) + 1e-6)
        ),
        behavior_version=20,
    ),
    row(
        "batch norm by variables",
        {"a": module(STATISTICS), "output": of("copy", "a")},
        TAGGED,
        lambda d: ends((d["data"] - 0.5) / 2 * 2 + 1),
        behavior_version=12,
    ),
    row(
        "LSTM by variables", {"a": module(LSTM), "output": of("copy", "a/h")}, TAGGED, shape=(3, 3), behavior_version=12
    ),
    row(
        "conv by variables",
        {
            "a": module(
                {
                    "filter": param(SpatialDim("k", 3), INPUT, WIDE),
                    "output": of(
                        "conv",
                        "base:data:data",
                        filter="filter",
                        filter_size=[3],
                        strides=[2],
                        padding="valid",
                        in_dim=INPUT,
                        out_dim=WIDE,
                        in_spatial_dims=[TIME],
                        out_spatial_dims=[STRIDED],
                        with_bias=False,
                    ),
                }
            ),
            "output": of("reduce", "a", mode="sum", axis=STRIDED),
        },
        TAGGED,
        lambda d: np.stack(
            [
                np.full(6, sum(x[i : i + 3].sum() for i in range(0, n - 2, 2)))
                for x, n in zip(d["data"], (5, 3, 4), strict=True)
            ]
        ),
        behavior_version=20,
    ),
    row(
        "self-attention in a loop, by a module",
        {"output": loop({"x": FRAME, "a": module(ATTENTION), "output": of("copy", "a")}, axis=TIME)},
        TAGGED,
        shape=(5, 3, 4),
        behavior_version=12,
    ),
    row(
        "a cell in a module",
        {
            "output": loop(
                {
                    "x": FRAME,
                    "a": module({"h": of("linear", ["base:x", "prev:h"], out_dim=WIDE), "output": of("copy", "h")}),
                    "output": of("copy", "a"),
                },
                axis=TIME,
            )
        },
        TAGGED,
        shape=(5, 3, 6),
        behavior_version=20,
    ),
    row(
        "one step of an LSTM",
        {
            "output": loop(
                {
                    "x": FRAME,
                    "a": of("rec", "x", unit="lstm", axis=single_step_dim, out_dim=STATE),
                    "output": of("copy", "a"),
                },
                axis=TIME,
            )
        },
        TAGGED,
        shape=(5, 3, 3),
        behavior_version=12,
    ),
    row(
        "sum of the frames so far",
        {"output": loop({"x": FRAME, "output": of("combine", ["x", "prev:output"], kind="add")}, axis=TIME)},
        TAGGED,
        lambda d: ends(d["data"].cumsum(1)),
        behavior_version=12,
    ),
    row(
        "a loop in a loop",
        {
            "output": loop(
                {
                    "x": FRAME,
                    "inner": loop(
                        {
                            "y": {"class": "rec_unstack", "axis": LABEL_TIME, "from": "base:base:emb"},
                            "output": of("combine", ["y", "base:x", "prev:output"], kind="add"),
                        },
                        axis=LABEL_TIME,
                    ),
                    "output": of("reduce", "inner", mode="max", axis=LABEL_TIME),
                },
                axis=TIME,
            ),
            "emb": of("linear", "data:classes", out_dim=INPUT),
        },
        SPOKEN,
        shape=(5, 3, 4),
        behavior_version=12,
    ),
    row("decoder", {"output": loop(DECODER, target="classes", max_seq_len=4)}, SPOKEN, behavior_version=20),
    row(
        "a condition of modules",
        {
            "flag": {"class": "train_flag"},
            "output": {
                "class": "cond",
                "from": [],
                "condition": "flag",
                "true_layer": module({"output": of("dropout", "base:data:data", dropout=0.5)}),
                "false_layer": module({"output": of("copy", "base:data:data")}),
            },
        },
        TAGGED,
        lambda d: d["data"],
        behavior_version=20,
    ),
    row(
        "losses by hand",
        {
            "a": linear("base:data:data", INPUT, LABELS),
            "ce": {
                "class": "sparse_softmax_cross_entropy_with_logits",
                "logits": "a",
                "targets": "data:classes",
                "axis": LABELS,
                "out_shape": BATCH_TIME,
            },
            "output": of("copy", "ce", loss="as_is", loss_scale=0.5),
        },
        SHARED_AXIS,
        lambda d: ends(np.full((3, 5), np.log(5))),
        behavior_version=20,
    ),
    row(
        "masked spans",
        {
            "n": {"class": "constant", "value": 2},
            "r": of("random", (), shape=[batch_dim, TIME], distribution="uniform", shape_deps=["data:data"]),
            "k": of("top_k", "r", axis=TIME, k="n", k_dim=SpatialDim("spans")),
            "i": of("range_in_axis", "data:data", axis=TIME),
            "hit": of("compare", ["i", "k/indices"], kind="equal", allow_broadcast_all_sources=True),
            "any": of("reduce", "hit", mode="any", axis="stag:spans"),
            "f": of("cast", "any", dtype="float32"),
            "output": of("reduce", "f", mode="sum", axis=TIME),
        },
        TAGGED,
        lambda d: np.full(3, 2.0),
        behavior_version=20,
    ),
    row(
        "the frame before",
        {
            "a": of("slice", "data:data", axis=TIME, slice_end=-1, out_dim=SpatialDim("most")),
            "b": of("pad", "a", axes="T", padding=(1, 0), out_dims=TIME),
            "output": of("combine", ["data:data", "b"], kind="sub"),
        },
        TAGGED,
        lambda d: ends(d["data"] - np.pad(d["data"], ((0, 0), (1, 0), (0, 0)))[:, :-1]),
        behavior_version=20,
    ),
]
