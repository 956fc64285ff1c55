"""What the axes that layers make are called (for "stag:…"), and which axis texts later behaviour versions refuse."""

import pytest

from returnn_lite.errors import ConfigError
from tests.nets import network

EXTERN = {"data": {"dim": 6}, "image": {"shape": (None, 8, 3)}, "classes": {"dim": 6, "sparse": True}}
TIME = "time:var:extern_data:data"
CONV = {"class": "conv", "n_out": 5}
NAMES = [
    ({**CONV, "filter_size": (3,), "padding": "valid"}, 1, "layer:conv:s0", f"(-1+{TIME})+-1"),
    ({**CONV, "filter_size": (4,), "padding": "valid", "strides": 2}, 1, "layer:conv:s0", f"⌈((-1+{TIME})+-2)/2⌉"),
    ({**CONV, "filter_size": (3,), "padding": "same", "strides": 2}, 1, "layer:conv:s0", f"⌈{TIME}/2⌉"),
    ({**CONV, "filter_size": (3,), "padding": "same"}, 1, TIME, TIME),
    ({**CONV, "filter_size": (3,), "padding": "same"}, 2, "layer:channel", "layer:channel"),
    ({"class": "pool", "mode": "max", "pool_size": (2,), "padding": "same"}, 1, "layer:conv:s0", f"⌈{TIME}/2⌉"),
    ({"class": "transposed_conv", "filter_size": (3,), "n_out": 5}, 1, f"{TIME}*3", f"{TIME}*3"),
    ({"class": "transposed_conv", "filter_size": (3,), "n_out": 5}, 2, "layer:channel", "layer:channel"),
    ({"class": "window", "window_size": 3}, 2, "layer:window", "layer:window"),
    ({"class": "split_dims", "axis": "F", "dims": (2, -1)}, 3, "layer_split_dims1_rem", "layer_split_dims1_rem"),
    ({"class": "pad", "axes": "T", "padding": (1, 2)}, 1, f"(1+{TIME})+2", f"(1+{TIME})+2"),
    ({"class": "gating", "activation": "tanh"}, 2, "feature:data//2", "feature:data//2"),
]


def made(layer, config=None, **others):
    net = {"layer": {"from": "data", **layer}, "output": {"class": "copy", "from": "layer"}, **others}
    return network(net, EXTERN, **(config or {}))


@pytest.mark.parametrize(("layer", "at", "name", "base"), NAMES)
def test_names(layer, at, name, base):
    dim = made(layer).spec("layer").dims[at]
    assert (dim.name, dim.base.name) == (name, base)


def test_a_kept_axis_keeps_its_name_and_the_others_are_counted_on():
    layer = {**CONV, "from": "data:image", "filter_size": (3, 3), "padding": "same", "strides": (1, 2)}
    dims = made(layer).spec("layer").dims
    assert [d.name for d in dims[1:3]] == ["time:var:extern_data:image", "layer:conv:s1"]


@pytest.mark.parametrize("text", ["stag:layer:conv:s0", "stag:extern_data:data"])
def test_both_names_are_found(text):
    layer = {**CONV, "filter_size": (3,), "padding": "same", "strides": 2}
    net = made(layer, output={"class": "reduce", "mode": "max", "axes": text, "from": "layer"})
    assert len(net.spec("output").dims) == 2


def test_equal_paths_have_equal_axes():
    layer = {**CONV, "filter_size": (3,), "padding": "valid", "strides": 2}
    net = made(
        layer, other={**layer, "from": "data"}, output={"class": "combine", "kind": "add", "from": ["layer", "other"]}
    )
    assert net.spec("layer").dims[1] == net.spec("other").dims[1]


BY_AXIS = [
    ({**CONV, "filter_size": (3,), "padding": "same"}, "in_spatial_dims", 1, "spatial:0"),
    ({"class": "pool", "mode": "max", "pool_size": (2,)}, "in_spatial_dims", [1], ["s:0"]),
    ({"class": "transposed_conv", "filter_size": (3,), "n_out": 5}, "in_spatial_dims", [1], ["spatial:0"]),
    ({"class": "norm"}, "axes", 2, "static:0"),
    ({"class": "math_norm", "p": 2}, "axes", 2, "static:0"),
    ({"class": "softmax_over_spatial"}, "axis", 1, "dyn:0"),
    ({"class": "positional_encoding"}, "axis", 1, "dyn:0"),
    ({"class": "rec", "unit": "lstm", "n_out": 3}, "axis", 1, "dyn:0"),
    ({"class": "accumulate_mean", "exp_average": 0.1}, "axes", [0, 1], ["B", "spatial:0"]),
]


@pytest.mark.parametrize(("layer", "option", "number", "order"), BY_AXIS, ids=lambda x: str(x)[:30])
def test_later_versions_refuse_axes_by_number_or_order(layer, option, number, order):
    made({**layer, option: number}, {"behavior_version": 4})
    with pytest.raises(ConfigError, match=f"`{option}` must not be a number"):
        made({**layer, option: number}, {"behavior_version": 5})
    made({**layer, option: order}, {"behavior_version": 6})
    with pytest.raises(ConfigError, match=f"`{option}` must not depend on the order of the axes"):
        made({**layer, option: order}, {"behavior_version": 7})
