"""Nets as people write them about axes: Dims in all places, options that layers give, unusual orders of axes.

A row: `row(name, layers, data, value)`. `layers`: the net, whose layer "output" is looked at; `data`: the extern_data;
`value`: the output in numpy, a function of the batch by key (zero after the sequence ends; `N` has the lengths), which
may hold anything there; None where numpy has no say. `shape`: the sizes of the axes as they stand, `config`: further
options.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from returnn_lite.compat.config_dims import FeatureDim, SpatialDim, batch_dim

N = [5, 3, 4]  # frames of the sequences
M = [2, 4, 3]  # lengths of other axes

TIME, OTHER, INPUT, LABELS = SpatialDim("time"), SpatialDim("other"), FeatureDim("input", 4), FeatureDim("labels", 5)
DATA = {"dim_tags": [batch_dim, TIME, INPUT]}  # (B, T, 4)
CLASSES = {"dim_tags": [batch_dim, TIME], "sparse_dim": LABELS}  # (B, T), 5 labels
TAGGED = {"data": DATA, "classes": CLASSES}
PLAIN = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
IMAGE = {"data": {"shape": (None, 6, 4)}}  # (B, T, 6, 4)
TIME_MAJOR = {"data": {"shape": (None, 4), "batch_dim_axis": 1, "time_dim_axis": 0}}  # (T, B, 4)
FEATURE_MAJOR = {"data": {"shape": (4, None), "feature_dim_axis": 1, "time_dim_axis": 2}}  # (B, 4, T)
FLAT = {"data": {"shape": (4,), "time_dim_axis": None}}  # (B, 4)
NO_BATCH = {"data": {"shape": (6, 4), "batch_dim_axis": None, "time_dim_axis": None}}  # (6, 4)
TWO = {"data": {"dim_tags": [batch_dim, TIME, INPUT]}, "more": {"dim_tags": [batch_dim, OTHER, INPUT]}}

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """A net; see above."""

    name: str
    layers: Mapping[str, Any]
    data: Mapping[str, Any]
    value: Callable[[Values], np.ndarray] | None = None
    shape: tuple[int, ...] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def row(name, layers, data=PLAIN, value=None, *, shape=None, **config):
    return Row(name, layers, data, value, shape, config)


def fresh(name, size=None):
    """A Dim of its own for each net; kind by its size."""
    return SpatialDim(name) if size is None else FeatureDim(name, size)


def of(word, source="data", /, **options):
    return {"class": word, "from": source, **options}


def ends(x, lengths=N, axis=1):
    """`x` with 0 after the sequence ends."""
    inside = np.arange(x.shape[axis]) < np.array(lengths)[:, None]
    shape = [len(lengths) if i == 0 else x.shape[axis] if i == axis else 1 for i in range(x.ndim)]
    return x * inside.reshape(shape).astype(x.dtype)


def mean_pairs(x):
    """Neighbouring ones of the five frames averaged; the last one is itself."""
    return np.concatenate([(x[:, :-1:2] + x[:, 1::2]) / 2, x[:, -1:]], 1)


POOL = {"mode": "avg", "pool_size": [2], "padding": "same", "in_spatial_dims": ["T"]}
short, sunk, long = fresh("short"), fresh("sunk"), fresh("long")
left, right, cut, steps = fresh("left"), fresh("right"), fresh("cut"), fresh("steps")
halves, joint, picked = FeatureDim("halves"), FeatureDim("joint"), fresh("picked")
heads, key_dim, keys, wide = SpatialDim("heads", 2), FeatureDim("key-dim", 2), fresh("keys"), fresh("wide", 6)
squares, state = fresh("squares"), FeatureDim("state")

ROWS = [
    # --- Dims that a config gives to axes which layers make -----------------------------------------------------------
    row(
        "conv",
        {
            "down": of("conv", filter_size=[3], strides=2, padding="same", n_out=3, out_spatial_dims=[short]),
            "output": of("reduce", "down", mode="max", axis=short),
        },
        TAGGED,
        shape=(3, 3),
    ),
    row(
        "pool, then as an axis of rec",
        {
            "down": of("pool", out_spatial_dims=[sunk], **POOL),
            "output": of("rec", "down", unit="lstm", n_out=3, axis=sunk),
        },
        shape=(3, 3, 3),
    ),
    row(
        "the given Dim is the computed one too",
        {
            "a": of("pool", out_spatial_dims=[fresh("given")], **POOL),
            "b": of("pool", **POOL),
            "output": of("combine", ["a", "b"], kind="add"),
        },
        value=lambda d: ends(2 * mean_pairs(d["data"]), [3, 2, 2]),
    ),
    row(
        "two names for one axis",
        {
            "a": of("pool", out_spatial_dims=[fresh("one")], **POOL),
            "b": of("pool", out_spatial_dims=[fresh("two")], **POOL),
            "output": of("combine", ["a", "b"], kind="sub"),
        },
        value=lambda d: 0 * mean_pairs(d["data"]),
    ),
    row(
        "arithmetic with a given Dim",
        {
            "a": of("pool", out_spatial_dims=[left], **POOL),
            "b": of("prefix_in_time", "a", prefix=1.0, out_dim=1 + left),
            "output": of("reduce", "b", mode="sum", axis=1 + left),
        },
        value=lambda d: 1 + ends(mean_pairs(d["data"]), [3, 2, 2]).sum(1),
    ),
    row(
        "transposed_conv",
        {
            "up": of("transposed_conv", filter_size=[2], n_out=3, out_spatial_dims=[long]),
            "output": of("reduce", "up", mode="mean", axis=long),
        },
        shape=(3, 3),
    ),
    row(
        "conv over an image",
        {
            "a": of(
                "conv",
                filter_size=(3, 3),
                strides=(1, 2),
                padding="same",
                n_out=2,
                in_spatial_dims=["T", "dim:6"],
                out_spatial_dims=[right, fresh("rows")],
            ),
            "output": of("merge_dims", "a", axes=["dim:3", "F"], keep_order=True),
        },
        IMAGE,
        shape=(3, 5, 6),
    ),  # fmt: skip
    row(
        "merge_dims without a size",
        {
            "a": of("split_dims", axis="F", dims=(2, 2)),
            "b": of("merge_dims", "a", axes=["static:0", "static:1"], out_dim=joint),
            "output": of("linear", "b", n_out=3, in_dim=joint, forward_weights_init=1.0),
        },
        value=lambda d: ends(np.repeat(d["data"].sum(-1, keepdims=True), 3, -1)),
    ),
    row("split", {"a": of("split", out_dims=[halves, fresh("b", 1)]), "output": of("copy", "a/0")}, shape=(3, 5, 3)),
    row("gating", {"output": of("gating", activation=None, out_dim=FeatureDim("gated"))}, shape=(3, 5, 2)),
    row(
        "reduce_out",
        {"output": of("reduce_out", mode="max", num_pieces=2, out_dim=fresh("pieces", 2))},
        shape=(3, 5, 2),
    ),
    row(
        "pad",
        {
            "a": of("pad", axes=TIME, padding=(1, 2), value=1, out_dims=cut),
            "output": of("reduce", "a", mode="max", axis=cut, use_time_mask=False),
        },
        TAGGED,
        lambda d: np.maximum(d["data"].max(1), 1),
    ),
    row(
        "tile",
        {"output": of("tile", multiples={INPUT: 2}, out_dims={INPUT: fresh("tiled", 8)})},
        TAGGED,
        lambda d: np.tile(d["data"], (1, 1, 2)),
    ),
    row(
        "repeat",
        {
            "a": of("repeat", repetitions=2, axis="T", out_dim=steps),
            "output": of("reduce", "a", mode="sum", axis=steps),
        },
        value=lambda d: 2 * d["data"].sum(1),
    ),
    row(
        "window",
        {
            "a": of("window", window_dim=SpatialDim("w", 3), out_spatial_dim=fresh("at")),
            "output": of("reduce", "a", mode="sum", axis="stag:at"),
        },
        shape=(3, 3, 4),
    ),
    row(
        "range",
        {"a": of("range", (), limit=4, out_spatial_dim=SpatialDim("r")), "output": of("cast", "a", dtype="float32")},
        value=lambda d: np.arange(4.0),
    ),
    row(
        "top_k by a layer",
        {"k": {"class": "constant", "value": 2}, "output": of("top_k", axis="F", k="k", k_dim=picked)},
        value=lambda d: ends(-np.sort(-d["data"], -1)[..., :2]),
    ),
    row(
        "expand_dims",
        {"output": of("expand_dims", axis="F", dim=fresh("copies", 3))},
        value=lambda d: np.repeat(d["data"][..., None], 3, -1),
    ),
    row(
        "expand_dims by a dynamic Dim",
        {"a": of("reduce", mode="max", axis="T"), "output": of("expand_dims", "a", axis="spatial", dim=TIME)},
        TAGGED,
        lambda d: ends(
            np.repeat(np.where(np.arange(5)[:, None] < np.array(N)[:, None, None], d["data"], -9).max(1)[:, None], 5, 1)
        ),
    ),
    row(
        "concat",
        {"output": of("concat", [("data", "F"), ("data", "F")], out_dim=FeatureDim("twice"))},
        value=lambda d: np.tile(d["data"], (1, 1, 2)),
    ),
    row(
        "slice",
        {
            "a": of("slice", axis="T", slice_start=1, out_dim=fresh("tail")),
            "output": of("reduce", "a", mode="sum", axis="stag:tail"),
        },
        value=lambda d: d["data"][:, 1:].sum(1),
    ),
    row("softmax", {"output": of("softmax", out_dim=LABELS, loss="ce", target="classes")}, TAGGED, shape=(3, 5, 5)),
    row(
        "unflatten_nd",
        {
            "n": {"class": "constant", "value": np.array([[1, 2]] * 3), "shape": (batch_dim, 2)},
            "output": of("unflatten_nd", sizes="n", num_axes=2, in_dim=TIME, out_dims=[fresh("x"), squares]),
        },
        TAGGED,
        lambda d: d["data"][:, None, :2],
    ),
    # --- layers in the place of numbers -------------------------------------------------------------------------------
    row("slice_nd without start", {"output": of("slice_nd", size=TIME)}, TAGGED, lambda d: d["data"]),
    row(
        "slice_nd of frames that all sequences share",
        {"a": of("reduce", mode="max", axis="B"), "output": of("slice_nd", "a", start=3)},
        value=lambda d: d["data"].max(0)[3:],
    ),
    row(
        "slice_nd, found by its tag",
        {
            "n": of("length", "data:data"),
            "one": {"class": "constant", "value": 1},
            "at": of("combine", ["n", "one"], kind="sub"),
            "a": of("slice_nd", start="at"),
            "output": of("reduce", "a", mode="sum", axis="stag:sliced-time:a"),
        },
        value=lambda d: d["data"][np.arange(3), np.array(N) - 1],
    ),
    row(
        "scaled_grad",
        {"c": of("linear", n_out=1), "a": of("scaled_grad", scale="c"), "output": of("softmax", "a", loss="ce")},
        TAGGED,
        shape=(3, 5, 5),
    ),
    row(
        "rand_int",
        {
            "n": of("length", "data:data"),
            "zero": {"class": "constant", "value": 0},
            "a": of("rand_int", (), shape=(batch_dim, 2), maxval="n"),
            "output": of("compare", ["a", "n"], kind="less"),
        },
        value=lambda d: np.ones((3, 2), bool),
    ),
    row(
        "variable",
        {
            "a": of("range", (), limit=4, dtype="float32"),
            "output": {"class": "variable", "shape": (4,), "init_by_layer": "a"},
        },
        value=lambda d: np.arange(4.0),
    ),
    row(
        "random numbers of a state",
        {
            "seed": of("random_state_init", (), seed=3, out_dim=state),
            "v": {"class": "variable", "shape": [state], "dtype": "int64", "init_by_layer": "seed"},
            "m": of("reduce", mode="mean", axis="F"),
            "a": of(
                "random",
                (),
                shape=[batch_dim, TIME, 2],
                distribution="uniform",
                shape_deps=["data"],
                explicit_state="v",
                minval="m",
                maxval="m",
            ),
            "output": of("reduce", "a", mode="max", axis="F"),
        },
        TAGGED,
        lambda d: d["data"].mean(-1),
    ),
    row(
        "positions without batch, clipped by lengths",
        {"n": {"class": "constant", "value": 9}, "output": of("gather", axis="T", position="n", clip_to_valid=True)},
        value=lambda d: d["data"][np.arange(3), np.array(N) - 1],
    ),
    row(
        "a square matrix",
        {
            "a": {
                "class": "variable",
                "shape": [INPUT.copy(match_priority=1), INPUT],
                "init": np.arange(16.0).reshape(4, 4),
            },
            "output": of("dot", ["data", "a"], reduce=INPUT),
        },
        TAGGED,
        lambda d: d["data"] @ np.arange(16.0).reshape(4, 4).T,
        behavior_version=20,
    ),
    row(
        "repeated frames averaged again",
        {
            "a": of("repeat", axis="T", repetitions=4),
            "b": of("pool", "a", mode="avg", pool_size=[4], padding="same", in_spatial_dims=["T"]),
            "output": of("combine", ["data", "b"], kind="sub"),
        },
        value=lambda d: 0 * d["data"],
    ),
    row(
        "a parameter called as a method",
        {"output": {"class": "variable", "shape": (2,), "param_name": "param", "init": 3.0}},
        value=lambda d: np.full(2, 3.0),
    ),
    row(
        "no axes at all",
        {"output": of("reduce", mode="sum", axis=[batch_dim, TIME, INPUT], out_shape={})},
        TAGGED,
        lambda d: d["data"].sum(),
        behavior_version=20,
    ),
    row(
        "the largest of no frame",
        {"a": of("slice", axis="T", slice_start=5), "output": of("reduce", "a", mode="max", axis="T")},
        shape=(3, 4),
    ),
    row(
        "a Dim as the size of a filter",
        {"output": of("conv", filter_size=[SpatialDim("k", 3)], padding="valid", n_out=2)},
        shape=(3, 3, 2),
    ),
    # --- extern_data --------------------------------------------------------------------------------------------------
    row(
        "pairs of dim and ndim",
        {"output": of("softmax", loss="ce")},
        {"data": (4, 2), "classes": [5, 1]},
        shape=(3, 5, 5),
    ),
    row(
        "features before time",
        {"output": of("linear", n_out=3, forward_weights_init=1.0)},
        FEATURE_MAJOR,
        lambda d: ends(np.repeat(d["data"].sum(1, keepdims=True), 3, 1), axis=2),
    ),
    row(
        "features before time, without shape",
        {"output": of("reduce", mode="sum", axis="F")},
        {"data": {"dim": 4, "feature_dim_axis": 1}},
        lambda d: d["data"].sum(1),
    ),
    row(
        "features before time, conv",
        {"output": of("conv", filter_size=(3,), padding="same", n_out=2)},
        FEATURE_MAJOR,
        shape=(3, 5, 2),
    ),
    row(
        "features before time, rec", {"output": of("rec", unit="nativelstm2", n_out=2)}, FEATURE_MAJOR, shape=(5, 3, 2)
    ),
    row(
        "features before time, loss",
        {"output": of("copy", loss="mse", target="data")},
        FEATURE_MAJOR,
        lambda d: d["data"],
    ),
    row(
        "time before batch, conv",
        {"output": of("conv", filter_size=(3,), padding="valid", n_out=2)},
        TIME_MAJOR,
        shape=(3, 3, 2),
    ),
    row(
        "time before batch, window",
        {"a": of("window", window_size=3), "output": of("reduce", "a", mode="max", axis="stag:window")},
        TIME_MAJOR,
        shape=(3, 5, 4),
    ),
    row(
        "no batch axis",
        {"output": of("linear", n_out=2, forward_weights_init=1.0)},
        NO_BATCH,
        lambda d: np.repeat(d["data"].sum(-1, keepdims=True), 2, -1),
    ),
    row("numbers of the sequences", {"output": of("copy", "data:seq_idx")}, value=lambda d: np.arange(3)),
    # --- axes in unusual order ----------------------------------------------------------------------------------------
    row(
        "conv after swap_axes",
        {
            "a": of("swap_axes", axis1="T", axis2="dim:6"),
            "output": of("conv", "a", filter_size=(3, 3), padding="same", n_out=2),
        },
        IMAGE,
        shape=(3, 6, 5, 2),
    ),
    row(
        "pool over the features",
        {"output": of("pool", mode="MAX", pool_size=[2], in_spatial_dims=["F"])},
        value=lambda d: d["data"].reshape(3, 5, 2, 2).max(-1),
    ),
    row(
        "linear along another axis",
        {"output": of("linear", in_dim=INPUT, n_out=3, forward_weights_init=1.0)},
        {"data": {"dim_tags": [batch_dim, TIME, INPUT, FeatureDim("last", 2)]}},
        lambda d: ends(np.repeat(d["data"].sum(2, keepdims=True), 3, 2)),
    ),
    row(
        "mean and frames side by side",
        {
            "a": of("reduce", mode="mean", axis="T"),
            "output": of("linear", ["a", "data"], n_out=1, forward_weights_init=1.0),
        },
        value=lambda d: ends(
            (d["data"].sum(1) / np.array(N)[:, None]).sum(-1)[:, None, None] + d["data"].sum(-1, keepdims=True)
        ),
    ),
    row(
        "all pairs of frames",
        {"output": of("dot", ["data", "data:more"], reduce="F")},
        TWO,
        lambda d: np.einsum("bif,bjf->bij", d["data"], d["more"]),
        behavior_version=3,
    ),
    row(
        "outer sum",
        {
            "a": of("reduce", mode="sum", axis="F"),
            "b": of("reduce", "data:more", mode="sum", axis="F"),
            "output": of("combine", ["a", "b"], kind="add", out_shape={batch_dim, TIME, OTHER}),
        },
        TWO,
        lambda d: ends(ends(d["data"].sum(-1)[:, :, None] + d["more"].sum(-1)[:, None]), M, 2),
        behavior_version=20,
    ),
    row(
        "attention of Dims",
        {
            "q": of("split_dims", axis="F", dims=(heads, key_dim)),
            "k": of("reinterpret_data", "q", set_dim_tags={"T": keys}),
            "e": of("dot", ["q", "k"], red1=key_dim, red2=key_dim, var1=TIME, var2=keys),
            "w": of("softmax_over_spatial", "e", axis=keys),
            "c": of("dot", ["w", "k"], red1=keys, red2=keys, var1=TIME, var2=key_dim),
            "output": of("merge_dims", "c", axes="static"),
        },
        TAGGED,
        shape=(3, 5, 4),
    ),
    row(
        "causal mask",
        {
            "i": of("range_in_axis", axis="T"),
            "j": of("reinterpret_data", "i", set_dim_tags={"T": fresh("js")}),
            "output": of("compare", ["i", "j"], kind="greater_equal", allow_broadcast_all_sources=True),
        },
        TAGGED,
        lambda d: np.tri(5, dtype=bool),
        behavior_version=20,
    ),
    row(
        "matrix of Dims",
        {
            "a": {"class": "variable", "shape": [INPUT, wide], "init": 1.0},
            "output": of("dot", ["data", "a"], reduce=INPUT),
        },
        TAGGED,
        lambda d: np.repeat(d["data"].sum(-1, keepdims=True), 6, -1),
        behavior_version=20,
    ),
    row(
        "labels looked up by a dot",
        {
            "a": {"class": "variable", "shape": [LABELS, INPUT], "init": 2.0},
            "output": of("dot", ["data:classes", "a"], reduce=LABELS),
        },
        TAGGED,
        lambda d: ends(np.full((3, 5, 4), 2.0)),
    ),
    row(
        "counts of labels",
        {
            "a": of("reduce", mode="mean", axis="F"),
            "output": of("scatter_nd", "a", position="data:classes", position_axis=TIME, out_spatial_dim=LABELS),
        },
        TAGGED,
        shape=(3, 5),
    ),
    row(
        "frames in the batch and back",
        {"a": of("flatten_batch"), "b": of("eval", "a", eval="source(0) * 2"), "output": of("unflatten_batch", "b")},
        value=lambda d: 2 * d["data"],
    ),
    row("reversed frames of the tensor", {"output": of("slice", axis="T", slice_step=-1)}, value=None, shape=(3, 5, 4)),
    row(
        "no axis but the batch",
        {"output": of("linear", n_out=2, forward_weights_init=1.0)},
        FLAT,
        lambda d: np.repeat(d["data"].sum(-1, keepdims=True), 2, -1),
    ),
    row(
        "a single number",
        {"a": of("reduce", mode="sum", axes="*"), "output": of("copy", "a", loss="as_is")},
        value=lambda d: d["data"].sum(),
    ),
    row(
        "an axis twice", {"output": of("reduce", mode="sum", axes=["T", "stag:time"])}, value=lambda d: d["data"].sum(1)
    ),
]
