"""Specs of extern_data entries."""

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, batch_dim
from returnn_lite.tensor.build import data_spec

FEAT, TIME, CLASSES = Dim(4, "feat"), Dim(None, "time"), Dim(9, "classes")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dim": 4}, "[B, T:time:var:extern_data:x(?), F:feature:x(4)] float32"),
        ({"dim": 4, "sparse": True}, "[B, T:time:var:extern_data:x(?)] int32 sparse_dim=x:sparse-dim(4)"),
        ({"shape": (), "dim": 4, "sparse": True, "dtype": "uint8"}, "[B] uint8 sparse_dim=x:sparse-dim(4)"),
        ({"dim": 4, "time_dim_axis": None}, "[B, F:feature:x(4)] float32"),
        ({"dim": 4, "sparse": True, "time_dim_axis": None}, "[B] int32 sparse_dim=x:sparse-dim(4)"),
        ({"shape": (None, 4)}, "[B, T:time:var:extern_data:x(?), F:feature:x(4)] float32"),
        (
            {"shape": (None, 3, 4)},
            "[B, T:time:var:extern_data:x(?), spatial2:static3:x(3), F:feature:x(4)] float32",
        ),
        (
            {"shape": (None, None, 4)},
            "[B, T:time:var:extern_data:x(?), spatial2:var:extern_data:x(?), F:feature:x(4)] float32",
        ),
        ({"dim": 4, "batch_dim_axis": 1}, "[T:time:var:extern_data:x(?), B, F:feature:x(4)] float32"),
        ({"shape": (4, None)}, "[B, F:feature:x(4), T:time:var:extern_data:x(?)] float32"),
        ({"shape": (None,)}, "[B, T:time:var:extern_data:x(?)] float32"),
        ({"shape": (), "dtype": "string"}, "[B] string"),
        ({"shape": (5, 4), "batch_dim_axis": None}, "[spatial0:static5:x(5), F:feature:x(4)] float32"),
        ({"dim_tags": [batch_dim, TIME, FEAT]}, "[B, T:time(?), F:feat(4)] float32"),
        ({"dims": (batch_dim, TIME), "sparse_dim": CLASSES}, "[B, T:time(?)] int32 sparse_dim=classes(9)"),
        ({"dim": 4, "same_dim_tags_as": {"t": TIME}}, "[B, T:time(?), F:feature:x(4)] float32"),
        ({"shape": (4,), "available_for_inference": False, "vocab": {}}, "[B, F:feature:x(4)] float32"),
    ],
)
def test_axes(options, expected):
    assert repr(data_spec("x", options)) == expected


def test_keys_share_an_axis_only_by_a_common_dim():
    make = lambda key, **more: data_spec(key, {"dim": 4, **more}).time_dim  # noqa: E731
    assert make("x") != make("y") and make("x") != make("x")
    assert make("x", same_dim_tags_as={"T": TIME}) is make("y", same_dim_tags_as={"T": TIME}) is TIME


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimm": 4}, "unknown option 'dimm'; did you mean \"dim\"?"),
        ({"dim": 4, "shape": (None, 5)}, "`dim` must be the last entry of `shape` (None, 5), but is 4 instead"),
        ({"shape": 5}, "`shape` must be a tuple without the batch axis, but is 5 instead"),
        ({"dim": "4", "sparse": True}, "`dim` must be an int, but is '4' instead"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError) as caught:
        data_spec("x", options)
    assert str(caught.value) == f"extern_data['x']: {message}"
