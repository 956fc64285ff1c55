"""Axis layers in the unit of a rec layer: run tick by tick or over all frames at once, the numbers are the same."""

import pytest
import torch

from tests.layers.layer_cases import KEYS, LENGTHS
from tests.nets import batch, network, randomised, valid_part

IMAGE = "data:image"  # (B, 6, 4) at a tick
MEMORY = "base:data:memory"  # (B, S, 4), the same at all ticks
SUM = {"sum": {"class": "combine", "kind": "add", "from": [MEMORY, "data:source"]}}  # (B, S, 4) at a tick
ENERGY = {**SUM, "energy": {"class": "linear", "n_out": 1, "from": "sum"}}
SCALAR = {"scalar": {"class": "squeeze", "axis": "F", "from": "energy"}, **ENERGY}  # (B, S) at a tick
PICK = {"pick": {"class": "compare", "kind": "greater", "value": 0.0, "from": "data:source"}}
PLACES = {**SCALAR, "places": {"class": "reduce", "mode": "argmax", "axis": "T", "from": "scalar"}}  # (B,) in S

CASES = [
    ({"class": "split_dims", "axis": "F", "dims": (2, -1), "from": IMAGE}, {}),
    ({"class": "split_dims", "axis": "T", "dims": (-1, 2), "from": "sum"}, SUM),
    ({"class": "merge_dims", "axes": "static", "from": IMAGE}, {}),
    ({"class": "merge_dims", "axes": "except_batch", "from": IMAGE}, {}),
    ({"class": "merge_dims", "axes": ["T", "F"], "from": "sum"}, SUM),
    ({"class": "swap_axes", "axis1": "dim:6", "axis2": "F", "from": IMAGE}, {}),
    ({"class": "transpose", "perm": ["F", "B", "dim:6"], "from": IMAGE}, {}),
    ({"class": "squeeze", "axis": "F", "from": "energy"}, ENERGY),
    ({"class": "expand_dims", "axis": "F", "from": "data:source"}, {}),
    ({"class": "expand_dims", "axis": "spatial", "from": "data:source"}, {}),
    ({"class": "expand_dims", "axis": 1, "from": "data:source"}, {}),
    ({"class": "reduce", "mode": "mean", "axis": "T", "from": "sum"}, SUM),
    ({"class": "reduce", "mode": "max", "axis": "except_batch", "from": "sum"}, SUM),
    ({"class": "reduce", "mode": "argmax", "axis": "F", "from": IMAGE}, {}),
    ({"class": "reduce", "mode": "sum", "axis": -1, "from": IMAGE}, {}),
    ({"class": "dot", "red1": "F", "red2": "F", "var1": "T", "var2": "", "from": [MEMORY, "data:source"]}, {}),
    ({"class": "dot", "red1": "T", "red2": "T", "var1": "F", "var2": "F", "from": ["sum", "sum"]}, SUM),
    ({"class": "dot", "reduce": "F", "from": [IMAGE, "data:source"]}, {}),
    ({"class": "dot", "red1": "F", "red2": "F", "var1": "dim:6", "var2": "T", "from": [IMAGE, MEMORY]}, {}),
    ({"class": "length", "axis": "T", "from": "sum"}, SUM),
    ({"class": "length", "axis": "T", "from": MEMORY}, {}),
    ({"class": "gather", "axis": "T", "position": "places", "from": "sum"}, {**SUM, **PLACES}),
    ({"class": "gather", "axis": "T", "position": "places", "from": MEMORY}, PLACES),
    ({"class": "gather", "axis": "F", "position": 1, "from": IMAGE}, {}),
    ({"class": "gather_nd", "position": "places", "from": MEMORY}, PLACES),
    ({"class": "gather_nd", "position": "data:position", "from": IMAGE}, {}),
    ({"class": "slice", "axis": "F", "slice_start": 1, "from": IMAGE}, {}),
    ({"class": "slice", "axis": "T", "slice_end": -1, "from": "sum"}, SUM),
    ({"class": "slice_nd", "start": "places", "size": 2, "from": "sum"}, {**SUM, **PLACES}),
    ({"class": "slice_nd", "start": "places", "size": 2, "from": MEMORY}, PLACES),
    ({"class": "shift_axis", "axis": "T", "amount": 1, "from": "sum"}, SUM),
    ({"class": "shift_axis", "axis": "dim:6", "amount": -2, "pad": False, "from": IMAGE}, {}),
    ({"class": "pad", "axes": "T", "padding": 1, "handle_dynamic_dims": True, "value": 2.0, "from": "sum"}, SUM),
    ({"class": "prefix_in_time", "prefix": 2.0, "from": "sum"}, SUM),
    ({"class": "postfix_in_time", "postfix": "data:source", "from": "sum"}, SUM),
    ({"class": "postfix_in_time", "postfix": "data:source", "from": MEMORY}, {}),
    ({"class": "window", "window_size": 3, "from": "sum"}, SUM),
    ({"class": "window", "window_size": 3, "stride": 2, "axis": "dim:6", "from": IMAGE}, {}),
    ({"class": "concat", "from": [("sum", "T"), (MEMORY, "T")]}, SUM),
    ({"class": "concat", "from": [("data:source", "F"), ("data:source", "F")]}, {}),
    ({"class": "stack", "from": ["data:source", "prev:output"]}, {}),
    ({"class": "stack", "from": ["sum", "data:source"]}, SUM),
    ({"class": "tile", "multiples": {"F": 2}, "from": "data:source"}, {}),
    ({"class": "repeat", "axis": "T", "repetitions": 2, "from": "sum"}, SUM),
    ({"class": "resize", "axis": "T", "factor": 2, "kind": "linear", "from": "sum"}, SUM),
    ({"class": "cumsum", "axis": "T", "from": "sum"}, SUM),
    ({"class": "weighted_sum", "axes": "dim:6", "from": IMAGE}, {}),
    ({"class": "elemwise_prod", "axes": "F", "from": IMAGE}, {}),
    ({"class": "top_k", "axis": "F", "k": 2, "from": IMAGE}, {}),
    ({"class": "switch", "condition": "pick", "true_from": "data:source", "false_from": 1.0}, PICK),
    ({"class": "switch", "condition": "pick", "true_from": MEMORY, "false_from": "data:source"}, PICK),
    ({"class": "seq_len_mask", "mask_value": 3.0, "from": "sum"}, SUM),
    ({"class": "reinterpret_data", "set_axes": {"T": "dim:6"}, "from": IMAGE}, {}),
    ({"class": "reinterpret_data", "size_base": MEMORY, "from": "sum"}, SUM),
    ({"class": "range_in_axis", "axis": "T", "from": "sum"}, SUM),
    ({"class": "cast", "dtype": "int32", "from": "data:source"}, {}),
    ({"class": "constant", "value": 2.0, "with_batch_dim": True}, {}),
    ({"class": "variable", "shape": (3,)}, {}),
    ({"class": "time_unchunking", "chunking_layer": "chunks", "from": "chunks"},
     {**SUM, "chunks": {"class": "time_chunking", "chunk_size": 3, "chunk_step": 2, "from": "sum"}}),
    ({"class": "unflatten_batch", "from": "packed"}, {**SUM, "packed": {"class": "flatten_batch", "from": "sum"}}),
]  # fmt: skip


def result(layer, extra, move_out):
    """The layer's frames, stacked by the loop."""
    output = {"class": "copy", "from": "data:source"}
    unit = {**extra, "it": {**layer, "is_output_layer": True}, "output": output}
    net = {
        "output": {"class": "copy", "from": "loop/it"},
        "loop": {"class": "rec", "from": "data", "unit": unit, "optimize_move_layers_out": move_out},
    }
    made = randomised(network(net, KEYS))
    data, lengths = batch(KEYS, LENGTHS, padding="zeros")
    return made(data, lengths)["output"]


@pytest.mark.parametrize(("layer", "extra"), CASES, ids=[f"{c[0]['class']}-{i}" for i, c in enumerate(CASES)])
def test_frames_at_once_are_the_frames_one_by_one(layer, extra):
    at_once, one_by_one = result(layer, extra, True), result(layer, extra, False)
    assert [d.size for d in at_once.spec.dims] == [d.size for d in one_by_one.spec.dims]
    torch.testing.assert_close(valid_part(at_once), valid_part(one_by_one))
