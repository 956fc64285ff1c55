"""Axis layers on small numbers: what comes out, with which lengths and roles, and what is refused."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, batch_dim
from tests.nets import network, randomised

LENGTHS = {"data": [3, 1], "classes": [3, 1]}
DATA = torch.arange(12.0).reshape(2, 3, 2)  # (B, T, F): frames [0, 1], [2, 3], [4, 5]; [6, 7], then padding
CLASSES = torch.tensor([[2, 0, 1], [1, 3, 3]], dtype=torch.int32)
EXTERN = {"data": {"dim": 2}, "classes": {"dim": 4, "sparse": True}}


def run(layer, config=None, **others):
    """The output of a layer dict on the small batch; `others`: further layers of the net."""
    net = network({"output": {"from": "data", **layer}, **others}, EXTERN, **(config or {}))
    lengths = {k: torch.tensor(v, dtype=torch.int32) for k, v in LENGTHS.items()}
    return net({"data": DATA, "classes": CLASSES}, lengths)["output"]


def lengths_of(x, axis):
    return x.length(x.spec.dims[axis]).values.tolist()


def refused(layer, words, config=None, **others):
    """The layer is refused with a path and these words."""
    with pytest.raises(ConfigError) as caught:
        run(layer, config, **others)
    assert 'network["' in caught.value.path
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_split_dims_pads_a_dynamic_axis_to_a_multiple():
    x = run({"class": "split_dims", "axis": "T", "dims": (-1, 2), "pad_value": -1})
    assert x.data.shape == (2, 2, 2, 2) and lengths_of(x, 1) == [2, 1]
    assert x.data[0, 1].tolist() == [[4, 5], [-1, -1]]
    assert x.spec.time == 1 and x.spec.feature == 3


def test_splitting_features_makes_the_last_part_the_features():
    assert run({"class": "split_dims", "axis": "F", "dims": (2, 1)}).spec.feature == 3
    assert run({"class": "split_dims", "axis": "F", "dims": (-1, 1)}).data.shape == (2, 3, 2, 1)


def test_split_dims_by_a_dynamic_dim_gives_it_the_lengths_of_the_rest():
    blocks = Dim(None, "blocks")
    x = run({"class": "split_dims", "axis": "T", "dims": (blocks, 2)})
    assert x.spec.dims[1] == blocks and x.length(blocks).values.tolist() == [2, 1]


def test_splitting_the_batch_gives_a_smaller_one():
    x = run({"class": "split_dims", "axis": "B", "dims": (-1, 2)})
    assert x.data.shape == (1, 2, 3, 2) and x.spec.batch == 0 and lengths_of(x, 2) == [3]


def test_split_dims_refuses_what_does_not_fit():
    refused({"class": "split_dims", "axis": "F", "dims": (3, -1)}, ["product", "2"])
    refused({"class": "split_dims", "axis": "F", "dims": (-1, -1)}, ["at most one -1"])
    refused({"class": "split_dims", "axis": "T", "dims": (2, 2)}, ["needs a -1"])
    refused({"class": "split_dims", "axis": "F", "dims": (0, -1)}, ["positive"])


def test_merging_multiplies_the_lengths():
    x = run({"class": "merge_dims", "axes": ["T", "F"]})
    assert x.data[0].tolist() == [0, 1, 2, 3, 4, 5] and lengths_of(x, 1) == [6, 2]
    assert x.spec.feature == 1 and x.spec.time is None


def test_merging_in_the_order_listed():
    x = run({"class": "combine_dims", "axes": ["F", "T"]})
    assert x.data[0].tolist() == [0, 2, 4, 1, 3, 5]
    assert run({"class": "merge_dims", "axes": ["F", "T"]}).data[0].tolist() == [0, 1, 2, 3, 4, 5]
    late = run({"class": "merge_dims", "axes": ["F", "T"]}, {"behavior_version": 6})
    assert late.data[0].tolist() == [0, 2, 4, 1, 3, 5]
    refused({"class": "merge_dims", "axes": "TF"}, ["`axes` must be a list"], {"behavior_version": 6})


def test_merging_batch_and_time_repeats_the_lengths_of_other_axes():
    split = {"class": "split_dims", "axis": "F", "dims": (2, 1), "from": "data"}
    x = run({"class": "merge_dims", "axes": ["B", "dim:2"], "from": "split"}, split=split)
    assert x.data.shape == (4, 3, 1) and lengths_of(x, 1) == [3, 3, 1, 1]
    assert x.data[:, 0, 0].tolist() == [0, 1, 6, 7]


def test_reduce_leaves_padding_out():
    mean = run({"class": "reduce", "mode": "mean", "axis": "T"})
    assert mean.data.tolist() == [[2, 3], [6, 7]] and mean.spec.feature == 1
    assert run({"class": "reduce", "mode": "mean", "axes": "bt"}).data.tolist() == [3, 4]
    assert run({"class": "reduce", "mode": "max", "axis": "T"}).data.tolist() == [[4, 5], [6, 7]]
    assert run({"class": "reduce", "mode": "sum", "axis": "T", "use_time_mask": False}).data[1].tolist() == [24, 27]


def test_argmax_has_a_static_axis_as_classes():
    x = run({"class": "reduce", "mode": "argmax", "axis": "T"})
    assert x.data.tolist() == [[2, 2], [0, 0]] and x.spec.dtype == "int32" and not x.spec.sparse
    assert run({"class": "reduce", "mode": "argmax", "axis": "F"}).spec.dim == 2


def test_a_number_as_axis_counts_in_the_batch_major_source():
    swapped = {"class": "swap_axes", "axis1": "B", "axis2": "T", "from": "data"}
    x = run({"class": "reduce", "mode": "sum", "axis": 1, "from": "swapped", "keep_dims": True}, swapped=swapped)
    assert x.data.tolist() == [[[6, 9]], [[6, 7]]]


def test_reduce_refuses():
    refused({"class": "reduce", "mode": "men", "axis": "T"}, ["men", 'did you mean "mean"'])
    refused({"class": "reduce", "mode": "max"}, ["`axis`"])
    refused({"class": "reduce", "mode": "max", "axis": "T", "from": "data:classes"}, ["dense"])
    refused({"class": "reduce", "mode": "argmax", "axes": ["T", "F"]}, ["one axis"])


@pytest.mark.parametrize("axis", ["Time", "spatial:0", "s:-1", "stag:data", "dyn", "stag-single:0:time", 1, -2])
def test_axis_texts_for_the_time_axis(axis):
    assert run({"class": "reduce", "mode": "max", "axis": axis}).data.shape == (2, 2)


def test_axes_by_number_or_order_are_refused_in_later_versions():
    by_number = {"class": "reduce", "mode": "max", "axis": 1}
    by_order = {"class": "reduce", "mode": "max", "axes": ["B", "spatial:0"]}
    run(by_number, {"behavior_version": 4})
    refused(by_number, ["must not be a number", ">= 5"], {"behavior_version": 5})
    run(by_order, {"behavior_version": 6})
    refused(by_order, ["order of the axes", ">= 7", "spatial:0"], {"behavior_version": 7})


def test_unknown_axes_are_told_with_the_axes_there_are():
    refused({"class": "squeeze", "axis": "stag:nothing"}, ["stag:nothing", "time:var:extern_data:data"])
    refused({"class": "cumsum", "axis": "tiem"}, ["tiem", 'did you mean "time"'])
    refused({"class": "squeeze", "axis": "F"}, ["size 1"])
    refused({"class": "expand_dims", "axis": "X"}, ["`axis`"])
    refused({"class": "transpose", "perm": ["B", "T"]}, ["every axis once"])


def test_dot_adds_an_axis_for_an_empty_var2_below_version_3():
    mean = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    layer = {"class": "dot", "red1": "F", "red2": "F", "var1": "T", "var2": None, "from": ["data", "mean"]}
    assert run(layer, mean=mean).data.shape == (2, 3, 1)
    assert run({**layer, "add_var2_if_empty": False}, mean=mean).data.shape == (2, 3)
    x = run(layer, {"behavior_version": 3}, mean=mean)
    assert x.data[0].tolist() == [3, 13, 23] and x.spec.time == 1
    refused({**layer, "add_var2_if_empty": True}, ["add_var2_if_empty"], {"behavior_version": 3}, mean=mean)
    refused({**layer, "red1": -1}, ["must not be a number"], {"behavior_version": 3}, mean=mean)


def test_dot_looks_classes_up():
    table = {"class": "variable", "shape": (4, 3), "init": 2.0}
    net = {"class": "dot", "reduce": "dim:4", "from": ["hot", "table"]}
    hot = {"class": "reinterpret_data", "from": "data:classes"}
    assert run(net, table=table, hot=hot).data.shape == (2, 3, 3)
    vocab = Dim(4, "vocab", kind="feature")
    table["shape"] = (vocab, 3)
    hot["set_sparse_dim"] = vocab
    x = run({**net, "reduce": vocab}, table=table, hot=hot)
    assert x.data.shape == (2, 3, 3) and x.data.unique().tolist() == [2]


def test_dot_refuses_axes_without_counterpart():
    layer = {"class": "dot", "red1": "F", "red2": "F", "var1": "", "var2": "", "from": ["data", "mean"]}
    mean = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    refused(layer, ["no counterpart"], mean=mean)
    refused({**layer, "var1": "T", "red2": "B"}, ["equal sizes"], mean=mean)


def test_reinterpret_data_exchanges_roles():
    x = run({"class": "reinterpret_data", "switch_axes": "bt"})
    assert x.spec.batch == 1 and x.spec.time == 0 and lengths_of(x, 0) == [2, 2, 2]
    x = run({"class": "reinterpret_data", "set_axes": {"T": "F", "F": None}})
    assert x.spec.time == 2 and x.spec.feature is None
    refused({"class": "reinterpret_data", "set_axes": {"X": "F"}}, ["`set_axes`"])
    refused({"class": "reinterpret_data", "switch_axes": "b"}, ["`switch_axes`"])


def test_reinterpret_data_gives_and_takes_classes():
    more = run({"class": "reinterpret_data", "increase_sparse_dim": 2, "from": "data:classes"})
    assert more.spec.dim == 6 and more.spec.sparse
    assert not run({"class": "reinterpret_data", "set_sparse": False, "from": "data:classes"}).spec.sparse


def test_lengths():
    assert run({"class": "length"}).data.tolist() == [3, 1]
    assert run({"class": "length", "add_time_axis": True}).data.tolist() == [[3], [1]]
    assert run({"class": "length", "axis": "F"}).data.item() == 2
    assert run({"class": "length", "axis": "B"}).data.item() == 2
    assert run({"class": "length", "axis": "sparse_dim", "from": "data:classes"}).data.item() == 4
    refused({"class": "length", "axis": "sparse_dim"}, ["sparse"])


def test_positions_of_the_lengths_have_their_axis():
    x = run({"class": "range_from_length", "from": "len"}, len={"class": "length", "from": "data"})
    assert x.data.tolist() == [0, 1, 2] and "data" in x.spec.dims[0].name


def test_slices():
    x = run({"class": "slice", "axis": "T", "slice_start": 1})
    assert x.data[0].tolist() == [[2, 3], [4, 5]] and lengths_of(x, 1) == [2, 0]
    x = run({"class": "slice", "axis": "T", "slice_end": -2})
    assert x.data.shape == (2, 1, 2) and lengths_of(x, 1) == [1, 0]
    x = run({"class": "slice", "axis": "T", "slice_end": 5})
    assert x.spec.dims[1].size == 5 and x.data.shape == (2, 5, 2)
    x = run({"class": "slice", "axis": "T", "slice_step": -1})
    assert x.data[0, :, 0].tolist() == [4, 2, 0] and lengths_of(x, 1) == [3, 1]
    assert run({"class": "slice", "axis": "F", "slice_start": 1}).data[0, 0].tolist() == [1]
    refused({"class": "slice", "axis": "F", "slice_start": -1}, ["must not be negative"])


def test_slices_per_sequence():
    start = {"class": "eval", "eval": "source(0) - 2", "from": "len"}
    length = {"class": "length", "from": "data"}
    x = run({"class": "slice_nd", "start": "start", "size": 2}, start=start, len=length)
    assert x.data.tolist() == [[[2, 3], [4, 5]], [[0, 0], [6, 7]]]
    x = run({"class": "slice_nd", "start": "start", "size": None}, start=start, len=length)
    assert lengths_of(x, 1) == [2, 2]
    x = run({"class": "slice_nd", "start": 1, "size": 3}, len=length)
    assert x.data[..., 0].tolist() == [[2, 4, 0], [8, 10, 0]]  # a plain slice of the padded tensor
    x = run({"class": "slice_nd", "start": 1, "min_size": 1})
    assert lengths_of(x, 1) == [2, 1]
    x = run({"class": "slice_nd", "start": 0, "size": "len"}, len=length)
    assert "data" in x.spec.dims[1].name and lengths_of(x, 1) == [3, 1]


def test_shifting():
    right = run({"class": "shift_axis", "axis": "T", "amount": 1, "pad_value": 9})
    assert right.data[0, :, 0].tolist() == [9, 0, 2] and lengths_of(right, 1) == [3, 2]
    left = run({"class": "shift_axis", "axis": "T", "amount": -1, "pad": False})
    assert left.data[0, :, 0].tolist() == [2, 4] and lengths_of(left, 1) == [2, 0]
    refused({"class": "shift_axis", "axis": "T", "amount": 0}, ["`amount`"])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("constant", [7, 7, 0, 2, 4, 7]), ("reflect", [4, 2, 0, 2, 4, 2]), ("symmetric", [2, 0, 0, 2, 4, 4]),
     ("replication", [0, 0, 0, 2, 4, 4])],
)  # fmt: skip
def test_padding_modes(mode, expected):
    x = run({"class": "pad", "axes": "T", "padding": (2, 1), "mode": mode, "value": 7})
    assert x.data[0, :, 0].tolist() == expected and lengths_of(x, 1) == [6, 4]


def test_padding_behind_each_sequence():
    layer = {"class": "pad", "axes": "T", "padding": (0, 1), "value": 7}
    assert run(layer).data[1, :, 0].tolist() == [6, 8, 10, 7]
    assert run(layer, {"behavior_version": 21}).data[1, :, 0].tolist() == [6, 7, 7, 7]
    refused({**layer, "mode": "reflekt"}, ['did you mean "reflect"'])
    refused({**layer, "padding": [(1, 1), (1, 1)]}, ["`padding`"])


def test_frames_before_and_behind_each_sequence():
    x = run({"class": "postfix_in_time", "postfix": 9, "repeat": 2})
    assert x.data[1, :, 0].tolist() == [6, 9, 9, 9, 9] and lengths_of(x, 1) == [5, 3]
    x = run({"class": "prefix_in_time", "prefix": 9})
    assert x.data[1, :2, 0].tolist() == [9, 6] and lengths_of(x, 1) == [4, 2]
    both = run(
        {"class": "combine", "kind": "add", "from": ["before", "after"]},
        before={"class": "prefix_in_time", "from": "data"},
        after={"class": "postfix_in_time", "from": "data"},
    )
    assert both.data.shape == (2, 4, 2)  # x + 1 and 1 + x are one axis


def test_windows():
    x = run({"class": "window", "window_size": 4})  # one frame before, two behind
    assert x.data[0, 0, :, 0].tolist() == [0, 0, 2, 4]
    x = run({"class": "window", "window_size": 2, "padding": "valid"})
    assert x.data[0, :, :, 0].tolist() == [[0, 2], [2, 4]] and lengths_of(x, 1) == [2, 0]
    refused({"class": "window", "window_size": 2, "padding": "vaild"}, ['did you mean "valid"'])
    refused({"class": "window", "window_size": 3, "window_left": 3}, ["frames before"])
    refused({"class": "window", "window_size": 3, "window_left": 1, "window_right": 2}, ["must be 3"])


def test_parts_put_together_are_the_whole():
    x = run(
        {"class": "concat", "from": [("split/0", "F"), ("split/1", "F")]},
        split={"class": "split", "size_splits": (1, 1), "from": "data"},
    )
    assert torch.equal(x.data, DATA)
    refused({"class": "split", "num_splits": 3}, ["num_splits", "3"])
    refused({"class": "split", "size_splits": (1, 2)}, ["add up"])
    refused({"class": "split"}, ["num_splits"])
    refused({"class": "copy", "from": "s/7"}, ["0 to 1"], s={"class": "split", "num_splits": 2, "from": "data"})
    refused({"class": "concat", "from": ["data", "data"]}, ["pairs"])


def test_repeating_by_a_layer():
    x = run(
        {"class": "repeat", "axis": "T", "repetitions": "times"},
        times={"class": "cast", "dtype": "int32", "from": "same"},
        same={"class": "reinterpret_data", "size_base": "data", "set_sparse": False, "from": "data:classes"},
    )
    assert x.data[0, :, 0].tolist() == [0, 0, 4] and x.data[1, :, 0].tolist() == [6, 0, 0]
    assert lengths_of(x, 1) == [3, 1]


def test_resizing():
    linear = run({"class": "resize", "axis": "T", "factor": 2, "kind": "linear"})
    assert linear.data[0, :, 0].tolist() == [0, 1, 2, 3, 4, 4] and lengths_of(linear, 1) == [6, 2]
    filled = run({"class": "resize", "axis": "T", "factor": 2, "kind": "fill", "fill_value": -1})
    assert filled.data[0, :, 0].tolist() == [0, -1, 2, -1, 4, -1]
    half = run({"class": "resize", "axis": "T", "factor": 0.5})
    assert half.data[0, :, 0].tolist() == [0, 2] and lengths_of(half, 1) == [2, 1]
    cubic = run({"class": "resize", "axis": "T", "factor": 2, "kind": "cubic"})
    assert cubic.data[0, 2, 0].item() == 2
    refused({"class": "resize", "axis": "T", "factor": 2, "kind": "lienar"}, ['did you mean "linear"'])
    refused({"class": "resize", "axis": "T", "factor": 2, "fill_dropout": 0.5}, ["fill_dropout", '"fill"'])


def test_resizing_leaves_some_of_the_new_frames_out_in_training():
    fill = {"class": "resize", "axis": "T", "factor": 5, "kind": "fill", "fill_value": -1, "fill_dropout": 0.5}
    net = network({"output": {"from": "data", **fill}}, EXTERN)
    lengths = {k: torch.tensor(v, dtype=torch.int32) for k, v in LENGTHS.items()}
    assert lengths_of(net({"data": DATA}, lengths)["output"], 1) == [15, 5]
    net.train()
    x = net({"data": DATA}, lengths)["output"]
    first = x.data[0, :, 0].tolist()
    assert [n for n in first if n >= 0] == [0, 2, 4] and 3 < len(first) < 15
    assert lengths_of(x, 1) == [len(first), first.index(2)]


def test_sums():
    assert run({"class": "cumsum"}).data[0, :, 0].tolist() == [0, 2, 6]
    assert run({"class": "cumsum", "reverse": True}).data[0, :, 0].tolist() == [6, 6, 4]
    assert run({"class": "weighted_sum", "axes": "F"}).data[0].tolist() == [0.5, 2.5, 4.5]
    x = run({"class": "weighted_sum", "axes": "T", "size": 2, "padding": "valid"})
    assert x.data[0, :, 0].tolist() == [1, 3] and lengths_of(x, 1) == [2, 0]
    refused({"class": "weighted_sum", "axes": "T"}, ["static"])
    refused({"class": "weighted_sum", "axes": "T", "size": 2}, ["padding"])


def test_largest_values():
    x = run({"class": "top_k", "axis": "T", "k": 1})
    assert x.data.tolist() == [[[4], [5]], [[6], [7]]] and x.parts["indices"].data.tolist() == [[[2], [2]], [[0], [0]]]
    assert x.spec.feature is None
    refused({"class": "top_k", "axis": "F", "k": 3}, ["at most 2"])


def test_packing_and_back():
    by_sequence = run({"class": "flatten_batch"})
    assert by_sequence.data[:, 0].tolist() == [0, 2, 4, 6]
    by_frame = run({"class": "flatten_batch", "batch_major": False})
    assert by_frame.data[:, 0].tolist() == [0, 6, 2, 4]
    back = run({"class": "unflatten_batch", "from": "f"}, f={"class": "flatten_batch", "from": "data"})
    assert back.data[1, :, 0].tolist() == [6, 0, 0] and lengths_of(back, 1) == [3, 1]
    refused({"class": "unflatten_batch"}, ["flatten_batch"])


def test_boolean_mask_leaves_padding_out():
    large = {"class": "compare", "kind": "greater", "value": 1.0, "from": "first"}
    first = {"class": "gather", "axis": "F", "position": 0, "from": "data"}
    x = run({"class": "boolean_mask", "mask": "large", "dims": ["B", "T"]}, large=large, first=first)
    assert x.data.tolist() == [[2, 3], [4, 5], [6, 7]]


def test_chunks():
    x = run({"class": "time_chunking", "chunk_size": 2, "chunk_step": 1})
    assert x.data.shape == (2, 4, 2) and lengths_of(x, 0) == [2, 2, 1, 0]
    assert x.data[:, 1, 0].tolist() == [2, 4]
    refused({"class": "time_chunking", "chunk_size": 0, "chunk_step": 1}, ["an int from 1"])
    refused({"class": "time_unchunking", "chunking_layer": "data"}, ["time_chunking"])


def test_labels_are_removed():
    x = run({"class": "remove", "symbol": 0, "from": "data:classes"})
    assert x.data.tolist() == [[2, 1], [1, 0]] and lengths_of(x, 1) == [2, 1]


def test_flattened_images_are_parted():
    sizes = {"class": "constant", "value": [[1, 3], [1, 1]], "shape": (batch_dim, 2)}
    x = run({"class": "unflatten_nd", "sizes": "sizes", "num_axes": 2}, sizes=sizes)
    assert x.data[..., 0].tolist() == [[[0, 2, 4]], [[6, 0, 0]]]
    assert lengths_of(x, 1) == [1, 1] and lengths_of(x, 2) == [3, 1]


def test_positions_outside_are_told():
    refused(
        {"class": "gather", "axis": "T", "position": "five"},
        ["[0, 3)", "5"],
        five={"class": "constant", "value": 5, "with_batch_dim": True},
    )
    x = run(
        {"class": "gather", "axis": "T", "position": "five", "clip_to_valid": True},
        five={"class": "constant", "value": 5, "with_batch_dim": True},
    )
    assert x.data.tolist() == [[4, 5], [6, 7]]


def test_scattered_frames_add_up():
    layer = {"class": "scatter_nd", "position": "zero", "position_axis": "T", "output_dim_via_time_from": "data"}
    zero = {"class": "eval", "eval": "source(0) * 0", "from": "same"}
    same = {"class": "reinterpret_data", "size_base": "data", "from": "data:classes"}
    masked = {"class": "seq_len_mask", "mask_value": 0.0, "from": "data"}
    x = run({**layer, "from": "masked"}, zero=zero, masked=masked, same=same)
    assert x.data[:, :, 0].tolist() == [[6, 0, 0], [6, 0, 0]]
    layer.pop("output_dim_via_time_from")
    refused(layer, ["out_spatial_dim"], zero=zero, same=same)


def test_switch_takes_numbers_and_known_conditions():
    chosen = {"class": "compare", "kind": "greater", "value": 2.5, "from": "data"}
    x = run({"class": "switch", "condition": "chosen", "true_from": "data", "false_from": 0, "from": ()}, chosen=chosen)
    assert x.data[0, :, 0].tolist() == [0, 0, 4] and x.spec.dtype == "float32"
    x = run({"class": "switch", "condition": lambda: True, "true_from": "data", "false_from": "nothing"})
    assert torch.equal(x.data, DATA)
    refused(
        {"class": "switch", "condition": "chosen", "true_from": "data", "false_from": "data:classes", "from": ()},
        ["one dtype"],
        chosen=chosen,
    )


def test_cond_computes_one_branch():
    broken = {"class": "gather", "axis": "F", "position": "nine", "from": "data"}
    nine = {"class": "constant", "value": 9, "with_batch_dim": True}
    good = {"class": "gather", "axis": "F", "position": 1, "from": "data"}
    layer = {"class": "cond", "from": (), "condition": {"class": "train_flag"}}
    layer |= {"true_layer": broken, "false_layer": good}
    assert run(layer, nine=nine).data[0].tolist() == [1, 3, 5]
    refused({**layer, "true_layer": {"class": "copy", "from": "data"}}, ["both branches"])


def test_variables_are_set_and_read():
    others = {
        "v": {"class": "variable", "shape": (2,), "init": 1.0, "trainable": False},
        "two": {"class": "constant", "value": 2.0},
        "add": {"class": "variable_assign", "var": "v", "value": "two", "op": "add"},
    }
    read = {"class": "variable_read", "var": "v", "control_dependencies": ["add"], "from": ()}
    assert run(read, **others).data.tolist() == [3, 3]
    assert run({"class": "copy", "from": "v"}, **others).data.tolist() == [1, 1]
    refused({"class": "variable_read", "var": "two", "from": ()}, ["`variable` layer"], **others)
    refused({"class": "variable", "shape": (None, 2), "from": ()}, ["static"])


def test_constants():
    assert run({"class": "constant", "value": [1, 2], "from": ()}).data.tolist() == [1, 2]
    assert run({"class": "constant", "value": True, "from": ()}).spec.dtype == "bool"
    refused({"class": "constant", "value": 1, "dtype": "flaot32", "from": ()}, ['did you mean "float32"'])
    refused({"class": "constant", "shape": ("B", 2), "from": ()}, ["or a Dim"])
    refused({"class": "constant", "value": 1, "from": "data"}, ["`from` must be empty"])
    refused({"class": "constant", "shape": (Dim(None, "new"),), "from": ()}, ["shape_deps"])


def test_reshape():
    x = run({"class": "reshape", "in_dims": ["T", "F"], "out_dims": [-1]})
    assert x.data.shape == (2, 6) and lengths_of(x, 1) == [6, 2]
    refused({"class": "reshape", "in_dims": ["T", "T"], "out_dims": [-1]}, ["different axes"])


def test_print_writes_the_values(capsys):
    run({"class": "print", "from": "len"}, len={"class": "length", "from": "data"})
    assert capsys.readouterr().out == "PrintLayer output [3 1]\n"


@pytest.mark.parametrize(("position", "wanted"), [(9, [[4, 5], [6, 7]]), (1, [[2, 3], [6, 7]]), (-2, [[0, 1], [6, 7]])])
def test_gather_clips_a_number_to_each_sequence(position, wanted):
    x = run({"class": "gather", "axis": "T", "position": position, "clip_to_valid": True})
    assert x.data.tolist() == wanted and x.spec.time is None


def test_gather_clips_a_number_to_a_static_axis():
    x = run({"class": "gather", "axis": "F", "position": 7, "clip_to_valid": True})
    assert x.data.tolist() == DATA[..., 1].tolist()


def test_sources_whose_axes_all_differ_are_not_concatenated_from_version_4_on():
    label = {"class": "linear", "n_out": 2, "from": "data:classes"}
    refused(
        {"class": "copy", "from": ["data", "label"]}, ["require broadcasting"], {"behavior_version": 4}, label=label
    )
    assert run({"class": "copy", "from": ["data", "label"]}, label=label).data.shape == (2, 3, 3, 4)
    mean = {"class": "reduce", "mode": "mean", "axes": "T", "from": "data"}
    run({"class": "copy", "from": ["mean", "data"]}, {"behavior_version": 4}, mean=mean)


def test_windows_of_energies_need_the_mask():
    refused(
        {"class": "softmax_over_spatial", "window_start": 0, "window_size": 2, "use_time_mask": False},
        ["use_time_mask"],
    )


def test_parameter_scopes_do_not_end_in_a_slash():
    refused({"class": "linear", "n_out": 2, "name_scope": "x/"}, ["name_scope"])


@pytest.mark.parametrize("kind", ["maximum", "minimum"])
def test_equal_values_give_their_gradient_to_the_first_source(kind):
    both = {name: {"class": "variable", "shape": (2,)} for name in ("a", "b")}
    net = network({**both, "output": {"class": "combine", "kind": kind, "from": ["a", "b"], "loss": "as_is"}}, EXTERN)
    net(*[{"data": DATA}, {"data": torch.tensor([3, 1])}]).objective.backward()
    assert net.params["a/a"].grad.tolist() == [1, 1] and net.params["b/b"].grad.tolist() == [0, 0]


def test_options_of_an_activation_replace_its_axis():
    x = run({"class": "activation", "activation": "softmax", "opts": {"axis": 1}})
    torch.testing.assert_close(x.data, DATA.softmax(1))


@pytest.mark.parametrize("kind", ["truediv", "less"])
def test_a_kind_that_changes_the_dtype_needs_out_type(kind):
    both = {"class": "combine", "kind": kind, "from": ["data:classes", "data:classes"]}
    refused(both, ["must have dtype int32", "out_type"])
    dtype = "float32" if kind == "truediv" else "bool"
    assert run({**both, "out_type": {"dtype": dtype, "sparse": False}}).spec.dtype == dtype


@pytest.mark.parametrize("layer", [{"class": "linear"}, {"class": "rec", "unit": "lstm"}])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64"])
def test_labels_of_any_int_type_are_looked_up(layer, dtype):
    found = []
    for name in ("int32", dtype):
        extern = {**EXTERN, "classes": {**EXTERN["classes"], "dtype": name}}
        net = randomised(network({"output": {**layer, "n_out": 3, "from": "data:classes"}}, extern))
        lengths = {k: torch.tensor(v, dtype=torch.int32) for k, v in LENGTHS.items()}
        found.append(net({"data": DATA, "classes": CLASSES.to(getattr(torch, name))}, lengths)["output"].data)
    torch.testing.assert_close(*found)


def test_the_value_of_eval_must_have_the_sizes_of_its_axes():
    refused({"class": "eval", "eval": "source(0)[:, :, :1]"}, ["must have the axes", "(2, 3, 1)", "out_type"])
    halved = {"class": "eval", "eval": "source(0, auto_convert=False)[:, :, :1]", "out_type": {"shape": (None, 1)}}
    assert run(halved).data.shape == (2, 3, 1)
