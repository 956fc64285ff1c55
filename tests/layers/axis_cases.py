"""Rows of the layer table for layers that move, split, merge, reduce, pick or make axes."""

from returnn_lite.tensor import batch_dim
from tests.layers.layer_cases import TIME, Case, row

# The batch axis of the output is another one than that of the data.
OTHER_BATCH = frozenset({"flatten_batch", "time_chunking", "boolean_mask", "split_concatenated_multichannel"})
OTHER_BATCH |= {"batch_median_pooling"}

LETS_PADDING_THROUGH = frozenset(
    {"split_dims", "scatter_nd", "slice", "shift_axis", "pad", "window", "concat", "resize", "cumsum", "weighted_sum"}
)

# Padding is multiplied by 0: finite values do no harm, but NaN does.
ZERO_TIMES = frozenset({"dot"})

LENGTH = {"length": {"class": "length", "from": "data:data"}}
ONE = {"one": {"class": "constant", "value": 1}}
LAST = {**LENGTH, **ONE, "last": {"class": "combine", "kind": "sub", "from": ["length", "one"]}}
CHOSEN = {"chosen": {"class": "compare", "kind": "greater", "value": 0.0, "from": "data:scalar"}}
BOUND = {"bound": {"class": "reduce", "mode": "max", "axis": "T", "from": "data:data"}}
MEAN = {"mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}}
STATE = {"state": {"class": "variable", "shape": (2,), "trainable": False}, "two": {"class": "constant", "value": 2.0}}
FLAT = {"flat": {"class": "flatten_batch", "from": "data"}}
FLAT_BY_FRAME = {"flat": {"class": "flatten_batch", "batch_major": False, "from": "data"}}
MERGED = {"merged": {"class": "merge_dims", "axes": ["B", "T"], "from": "data"}}
CHUNKS = {"chunks": {"class": "time_chunking", "chunk_size": 3, "chunk_step": 2, "from": "data"}}
WINDOWS = {"windows": {"class": "window", "window_size": 3, "from": "data"}}
SQUARES = {"squares": {"class": "eval", "eval": "source(0) ** 2", "from": "data:scalar"}}
SUM = {**SQUARES, "sum": {"class": "cumsum", "from": "squares"}}
SIZES = {"sizes": {"class": "constant", "shape": (batch_dim, 2), "value": [2, 1]}}
LINEAR = {"class": "linear", "n_out": 2, "from": "data"}

AXIS_CASES: list[Case] = [
    row("split_dims", {"axis": "F", "dims": (2, -1)}),
    row("split_dims", {"axis": "T", "dims": (-1, 2), "pad_value": 1.5}),
    row("merge_dims", {"axes": ["dim:6", "F"]}, "image"),
    row("merge_dims", {"axes": ["T", "dim:6"]}, "image"),
    row("combine_dims", {"axes": ["F", "dim:6"]}, "image"),
    row("reshape", {"in_dims": ["F"], "out_dims": [2, 2]}),
    row("reshape", {"in_dims": ["dim:6", "F"], "out_dims": [3, -1]}, "image"),
    row("swap_axes", {"axis1": "T", "axis2": "F"}),
    row("transpose", {"perm": {"B": "T", "T": "B"}}, "image"),
    row("transpose", {"perm": ["F", "B", "T"]}),
    row("squeeze", {"axis": "F"}, "one", extra={"one": {"class": "linear", "n_out": 1, "from": "data"}}),
    row("expand_dims", {"axis": "F"}),
    row("expand_dims", {"axis": "spatial", "dim": 3}, "classes"),
    row("reduce", {"mode": "mean", "axis": "T"}),
    row("reduce", {"mode": "max", "axes": ["T", "dim:6"]}, "image"),
    row("reduce", {"mode": "logsumexp", "axis": "T", "keep_dims": True}, "scalar"),
    row("reduce", {"mode": "argmax", "axis": "F"}),
    row("reduce", {"mode": "any", "axis": "T"}, "flags"),
    row("dot", {"reduce": "F", "var1": "auto", "var2": "auto"}, ["data", "memory"]),
    row("dot", {"reduce": "T", "var1": "F", "var2": "F"}, ["data", "more"]),
    row("dot", {"red1": "F", "red2": "F", "var1": ["T", "dim:6"], "var2": ()}, ["image", "flat"]),
    row("reinterpret_data", {"switch_axes": "tf"}),
    row("reinterpret_data", {"enforce_time_major": True}),
    row("reinterpret_data", {"set_sparse_dim": 9}, "classes"),
    row("reinterpret_data", {"size_base": "data:more"}),
    row("length"),
    row("length", {"axis": "T", "add_time_axis": True}, "labels"),
    row("length", {"axis": "sparse_dim"}, "classes"),
    row("range", {"start": 1, "limit": 7, "delta": 2}, ()),
    row("range_in_axis", {"axis": "T"}),
    row("range_in_axis", {"axis": "F", "dtype": "float32"}),
    row("range_from_length", {}, "length", extra=LENGTH),
    row("seq_len_mask", {"mask_value": -1.0}),
    row("seq_len_mask", {"mask_value": 0.0, "window_start": "data:position", "window_size": 2}, "image"),
    row("cast", {"dtype": "float32"}, "classes"),
    row("constant", {"value": 2.5, "with_batch_dim": True}, ()),
    row("constant", {"value": 1, "shape": (TIME, 3), "shape_deps": ["data:data"]}, ()),
    row("variable", {"shape": (2, 3), "init": 1.5}, (), params={"it": (2, 3)}),
    row("variable", {"shape": (3,), "add_batch_axis": True, "param_name": "v"}, (), params={"v": (3,)}),
    row("variable_assign", {"var": "state", "value": "two", "op": "add"}, (), extra=STATE),
    row("variable_read", {"var": "state"}, (), extra=STATE),
    row("switch", {"condition": "chosen", "true_from": "data:data", "false_from": "data:flat"}, (), extra=CHOSEN),
    row("switch", {"condition": "chosen", "true_from": "data:classes", "false_from": 0}, (), extra=CHOSEN),
    row(
        "cond",
        {"condition": "flag", "true_layer": LINEAR, "false_layer": {**LINEAR, "activation": "tanh"}},
        (),
        extra={"flag": {"class": "train_flag"}},
        params={"W": (4, 2), "b": (2,)},
    ),  # fmt: skip
    row("train_flag", {}, ()),
    row("random_state_init", {"seed": 3}, ()),
    row("global_train_step", {}, ()),
    row("gather", {"axis": "T", "position": "last"}, extra=LAST),
    row("gather", {"axis": "F", "position": 2}, "image"),
    row("gather", {"axis": "dim:6", "position": "data:classes", "clip_to_valid": True}, "image"),
    row("gather_nd", {"position": "last"}, extra=LAST),
    row(
        "scatter_nd",
        {
            "position": "data:classes",
            "position_axis": "T",
            "output_dim_via_time_from": "data:memory",
            "filter_invalid_indices": True,
        },
    ),  # fmt: skip
    row("slice", {"axis": "F", "slice_start": 1, "slice_end": -1}),
    row("slice", {"axis": "T", "slice_start": 1, "slice_step": 2}),
    row("slice", {"axis": "T", "slice_end": 2}, "classes"),
    row("slice_nd", {"start": "data:position", "size": 2}),
    row("slice_nd", {"start": "data:position"}, "classes"),
    row("slice_nd", {"start": "data:position", "size": "data:position", "min_size": 1}, "image"),
    row("shift_axis", {"axis": "T", "amount": 1}),
    row("shift_axis", {"axis": "T", "amount": -2, "pad": False}),
    row("pad", {"axes": "T", "padding": (1, 2), "value": 3.0}),
    row("pad", {"axes": "F", "padding": (2, 1), "mode": "reflect"}),
    row("prefix_in_time", {"prefix": -1.0, "repeat": 2}),
    row("postfix_in_time", {"postfix": "bound", "repeat": 2}, extra=BOUND),
    row("postfix_in_time", {"postfix": 4}, "classes"),
    row("window", {"window_size": 3}),
    row("window", {"window_size": 2, "padding": "valid", "stride": 2}, "image"),
    row(
        "fold",
        {"mode": "mean", "in_spatial_dim": TIME, "window_dim": "stag:window"},
        "windows",
        extra=WINDOWS,
    ),  # fmt: skip
    row("concat", {}, [("data:data", "T"), ("data:memory", "T")]),
    row("concat", {}, [("data:data", "F"), ("data:more", "F")]),
    row("stack", {}, ["data", "more"]),
    row("split", {"num_splits": 2}, part="1"),
    row("split", {"size_splits": (1, 5), "axis": "dim:6"}, "image", part="0"),
    row("tile", {"multiples": {"F": 3}}),
    row("repeat", {"axis": "T", "repetitions": 2}),
    row("repeat", {"axis": "T", "repetitions": "data:classes"}),
    row("resize", {"axis": "T", "factor": 2}),
    row("resize", {"axis": "T", "factor": 1.5, "kind": "linear"}, "image"),
    row("resize", {"axis": "T", "factor": 2, "kind": "cubic"}),
    row("resize", {"axis": "T", "factor": 3, "kind": "fill", "fill_value": 4}, "classes"),
    row("cumsum"),
    row("weighted_sum", {"axes": "F"}, params={"W": (4,)}),
    row("weighted_sum", {"axes": "T", "size": 3, "padding": "same"}, params={"W": (3,)}),
    row("elemwise_prod", {"axes": "F"}, params={"W": (4,)}),
    row("top_k", {"axis": "F", "k": 2}),
    row("top_k", {"axis": ["dim:6", "F"], "k": 3}, "image", part="indices0"),
    row("top_k", {"axis": "T", "k": 2}),
    row("search_sorted", {"sorted_sequence": "sum", "values": "mean"}, (), extra={**SUM, **MEAN}),
    row("boolean_mask", {"mask": "data:flags", "dims": ["B", "T"]}),
    row("flatten_batch"),
    row("flatten_batch", {"batch_major": False}, "classes"),
    row("unflatten_batch", {}, "flat", extra=FLAT),
    row("unflatten_batch", {}, "flat", extra=FLAT_BY_FRAME),
    row("split_batch_time", {"base": "data:data"}, "merged", extra=MERGED),
    row("time_chunking", {"chunk_size": 3, "chunk_step": 2}),
    row("time_unchunking", {"chunking_layer": "chunks"}, "chunks", extra=CHUNKS),
    row("remove", {"symbol": 2}, "labels"),
    row("unflatten_nd", {"sizes": "sizes", "num_axes": 2}, extra=SIZES),
    row("print", {}, "label"),
    row("identity", {"control_dependencies": ["length"]}, extra=LENGTH),
    # moved out of a loop
    row("reduce", {"mode": "sum", "axis": "F"}, "data:source", loop=True),
    row("split_dims", {"axis": "F", "dims": (2, -1)}, "data:source", loop=True),
]
