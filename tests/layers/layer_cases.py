"""The layer table: at least one row for every config word; `test_all_layers.py` runs its suites over all rows.

A row: `row(word, options, sources, params=…, …)` – see `Case` for the fields. The tested layer is called "it". It reads
`sources`: data keys of `KEYS` (or of `extern`) or layers of `extra`. Add rows for new layers at the end of `CASES`, one
row per shape of interest (sparse input, no time axis, an axis option …), not one per option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.tensor import Dim

TIME = Dim(None, "time")  # the time axis that most keys share
SHARED = {"same_dim_tags_as": {"T": TIME}}
BATCH = 3
LENGTHS = {"time": [5, 3, 4], "labels": [2, 4, 3], "memory": [4, 6, 2]}  # by key, "time" for the shared axis

# The data keys that rows may read, as extern_data entries. All have a batch axis in front.
KEYS: dict[str, dict[str, Any]] = {
    "data": {"shape": (None, 4), **SHARED},  # (B, T, 4)
    "more": {"shape": (None, 4), **SHARED},  # (B, T, 4)
    "image": {"shape": (None, 6, 4), **SHARED},  # (B, T, 6, 4)
    "scalar": {"shape": (None,), **SHARED},  # (B, T), no feature axis
    "flat": {"shape": (4,), "time_dim_axis": None},  # (B, 4)
    "memory": {"shape": (None, 4)},  # (B, S, 4), a time axis of its own
    "classes": {"shape": (None,), "dim": 5, "sparse": True, **SHARED},  # (B, T), 5 classes
    "labels": {"shape": (None,), "dim": 5, "sparse": True},  # (B, N), 5 classes, a time axis of its own
    "label": {"shape": (), "dim": 5, "sparse": True, "time_dim_axis": None},  # (B,), 5 classes
    "flags": {"shape": (None,), "dtype": "bool", **SHARED},  # (B, T) bool
    "position": {"shape": (), "dtype": "int32", "time_dim_axis": None},  # (B,), 0 or 1: a frame that every sequence has
}


@dataclass(frozen=True)
class Case:
    """One layer in a small net.

    `word`: its config word; `options`: its dict without "class" and "from"; `sources`: its "from" ("data:" is put
    before data keys). `params`: names below the layer ("W", "rec/W_re") -> shapes, all it makes. `extra`: further
    layers of the net by name. `extern`: further data keys (extern_data entries; axes None are filled with lengths of
    `LENGTHS`). `loop`: the layer and `extra` stand in the unit of a rec layer over "data" and read "data:source",
    "prev:it", …. `part`: the sub-layer that is looked at ("0" for "it/0"). `config`: further global settings.
    `search`: the net searches.
    """

    word: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: str | Sequence[str] = "data"
    params: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extern: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loop: bool = False
    part: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    search: bool = False


row = Case

# Valid frames near a sequence end see frames behind it, as in the reference (`Layer.lets_padding_through`).
LETS_PADDING_THROUGH = frozenset({"pool", "twod_lstm"})

# Padding is multiplied by weights that are exactly 0: finite values do no harm, but NaN does.
ZERO_TIMES = frozenset({"generic_attention", "self_attention", "dot_attention", "concat_attention"})

FEEDBACK = {"output": {"class": "linear", "n_out": 3, "from": ["data:source", "prev:output"]}}
ATTENTION = {
    "energy": {"class": "linear", "n_out": 1, "from": "data"},
    "weights": {"class": "softmax_over_spatial", "from": "energy"},
}

SCORES = {"scores": {"class": "softmax", "n_out": 6, "from": "data"}}  # of 5 labels and the blank
TWOD = {"rec-twod/Vh_re": (3, 15), "rec-twod/Vv_re": (3, 15)}
MEMORY = "base:data:memory"  # whole, inside of a loop

CASES: list[Case] = [
    row("linear", {"n_out": 3, "activation": "tanh"}, params={"W": (4, 3), "b": (3,)}),
    row("linear", {"n_out": 3, "with_bias": False}, ["data", "more"], params={"W": (8, 3)}),
    row("linear", {"n_out": 3}, "classes", params={"W": (5, 3), "b": (3,)}),
    row("linear", {"n_out": 3, "use_transposed_weights": True}, "flat", params={"W": (3, 4), "b": (3,)}),
    row("linear", {"n_out": 3, "activation": "relu"}, "image", params={"W": (4, 3), "b": (3,)}),
    row("hidden", {"n_out": 3}, params={"W": (4, 3), "b": (3,)}),
    row("forward", {"n_out": 3}, params={"W": (4, 3), "b": (3,)}),
    row("softmax", {"n_out": 3}, params={"W": (4, 3), "b": (3,)}),
    row("softmax", {"target": "classes", "loss": "ce"}, params={"W": (4, 5), "b": (5,)}),
    row("activation", {"activation": "tanh"}),
    row("activation", {"activation": "softmax"}, "image"),
    row("combine", {"kind": "add"}, ["data", "more"]),
    row("combine", {"kind": "mul", "with_bias": True, "activation": "relu"}, ["data", "flat"], params={"b": (4,)}),
    row("combine", {"kind": "average"}, ["image", "image"]),
    row("compare", {"kind": "greater"}, ["data", "more"]),
    row("compare", {"kind": "equal", "value": 2}, "classes"),
    row("eval", {"eval": "source(0) * 2.0 + source(1)"}, ["data", "more"]),
    row("eval", {"eval": "source(0) % 3", "out_type": {"dim": 3, "sparse": True}}, "classes"),
    row("copy", {}, ["data", "more"]),
    row("copy", {}, "labels"),
    row("dropout", {"dropout": 0.5}),
    row("reduce_out", {"mode": "max", "num_pieces": 2}),
    row("pool", {"mode": "max", "pool_size": (2,), "padding": "same"}),
    row("pool", {"mode": "avg", "pool_size": (2, 3), "strides": (1, 2), "in_spatial_dims": ["T", "dim:6"]}, "image"),
    row("softmax_over_spatial"),
    row("softmax_over_spatial", {"axis": "dim:6", "log_space": True}, "image"),
    row("softmax_over_spatial", {"window_start": "data:position", "window_size": 2}),
    row("generic_attention", {"weights": "weights", "base": "data:data"}, (), extra=ATTENTION),
    row(
        "rec",
        {"unit": "nativelstm2", "n_out": 3},
        params={"rec/W": (4, 12), "rec/W_re": (3, 12), "rec/b": (12,)},
    ),  # fmt: skip
    row("rec", {"unit": FEEDBACK}, params={"rec/output/W": (7, 3), "rec/output/b": (3,)}),
    row(
        "rnn_cell",
        {"unit": "LSTMBlock", "n_out": 3},
        "data:source",
        loop=True,
        params={"rec/lstm_cell/kernel": (7, 12), "rec/lstm_cell/bias": (12,)},
    ),  # fmt: skip
    row("choice", {"beam_size": 2, "target": "classes", "initial_output": 0}, (), loop=True),
    row("decide", {}, "labels"),
    row(
        "subnetwork",
        {"subnetwork": {"output": {"class": "linear", "n_out": 3, "from": "data"}}},
        params={"output/W": (4, 3), "output/b": (3,)},
    ),  # fmt: skip
    row("positional_encoding", {"add_to_input": True}),
    row("positional_encoding", {"n_out": 7, "offset": "data:position"}, "image"),
    row("positional_encoding", {"n_out": 6, "constant": 3}, "classes"),
    row("positional_encoding", {"n_out": 5}, ":i", loop=True),
    row("positional_encoding", {"n_out": 5, "offset": "data:position"}, "data:source", loop=True),
    row("relative_positional_encoding", {"n_out": 3, "clipping": 2}, params={"encoding_matrix": (5, 3)}),
    row(
        "self_attention",
        {"num_heads": 2, "total_key_dim": 6, "n_out": 4, "key_shift": "shift"},
        extra={"shift": {"class": "relative_positional_encoding", "n_out": 3, "from": "data"}},
        params={"QKV": (4, 16)},
    ),  # fmt: skip
    row("self_attention", {"num_heads": 1, "total_key_dim": 6, "n_out": 4}, "image", params={"QKV": (4, 16)}),
    row(
        "self_attention",
        {"num_heads": 2, "total_key_dim": 6, "n_out": 4, "attention_left_only": True},
        ["data:source", "prev:it"],
        loop=True,
        params={"QKV": (8, 16)},
    ),  # fmt: skip
    row("get_last_hidden_state", {"n_out": 6}, "lstm", extra={"lstm": {"class": "rec", "n_out": 3, "from": "data"}}),
    row(
        "get_last_hidden_state",
        {"n_out": 6, "key": "c"},
        ["cell", "prev:cell"],
        loop=True,
        extra={"cell": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 3, "from": "data:source"}},
    ),  # fmt: skip
    row("rec_unstack", {}, "base:data", loop=True),
    row("dot_attention", {"base": MEMORY, "base_ctx": MEMORY, "energy_factor": 0.5}, "data:source", loop=True),
    row("dot_attention", {"base": MEMORY, "base_ctx": MEMORY}, "prev:it", loop=True),
    row("concat_attention", {"base": MEMORY, "base_ctx": MEMORY}, "data:source", loop=True, params={"v": (4,)}),
    row(
        "gauss_window_attention",
        {"base": MEMORY, "window_size": 3},
        "location",
        loop=True,
        extra={"location": {"class": "linear", "n_out": 1, "from": ["data:source", "prev:it"]}},
    ),  # fmt: skip
    row(
        "gauss_window_attention",
        {"base": "data:memory", "window_size": 2, "inner_size": 3},
        "location",
        extra={"location": {"class": "linear", "n_out": 1, "from": "data:flat"}},
    ),  # fmt: skip
    row("ctc_loss", {"logits": "scores", "targets": "data:labels"}, (), extra=SCORES),
    row("fast_bw", {"align_target": "ctc", "align_target_key": "labels", "input_type": "prob"}, "scores", extra=SCORES),
    row("fast_bw", {"align_target": "staircase", "staircase_seq_len_source": "data:labels"}),
    row(
        "forced_align",
        {"align_target": "data:labels", "topology": "rna", "input_type": "prob"},
        "scores",
        extra=SCORES,
    ),  # fmt: skip
    row(
        "forced_align",
        {"align_target": "data:label", "topology": "ctc", "input_type": "prob"},
        "scores",
        extra=SCORES,
        part="scores",
    ),  # fmt: skip
    row("ctc_decode", {}, "scores", extra=SCORES),
    row("ctc_decode", {"beam_size": 3}, "scores", extra=SCORES),
    row("ctc_decode", {"beam_size": 2, "length_bonus": 0.5}, "scores", extra=SCORES, part="scores"),
    row("edit_distance", {"a": "data:classes", "b": "data:labels"}, ()),
    row("edit_distance_table", {"target": "labels"}, "classes"),
    row("edit_distance_table", {"target": "layer:base:data:labels", "blank_idx": 0}, "data:classes", loop=True),
    row(
        "optimal_completions",
        {"target": "layer:base:data:labels"},
        "prev:table",
        loop=True,
        extra={"table": {"class": "edit_distance_table", "from": "data:classes", "target": "layer:base:data:labels"}},
    ),  # fmt: skip
    row("cum_concat", {"out_spatial_dim": Dim(None, "history")}, "data:source", loop=True),
    row(
        "twod_lstm",
        {"n_out": 3, "pooling": "weighted"},
        ["data:memory", "data"],
        params={**TWOD, "rec-twod/W_re": (8, 15), "rec-twod/W_att": (4, 3)},
    ),  # fmt: skip
    row(
        "twod_lstm",
        {"n_out": 3, "pooling": "average"},
        [MEMORY, "prev:it"],
        loop=True,
        params={**TWOD, "rec-twod/W_re": (7, 15)},
    ),  # fmt: skip
]
