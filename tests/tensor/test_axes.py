"""Axis texts of configs to positions."""

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, Spec, batch_dim
from returnn_lite.tensor.axes import axes, axis, describe
from returnn_lite.tensor.dim import FEATURE

TIME, ENC = Dim(None, "time:var:extern_data:data"), Dim(None, "Encoder:conv:s0")
HEADS, FEAT = Dim(2, "att_heads"), Dim(5, "feature:data", kind=FEATURE)
SPEC = Spec((TIME, batch_dim, ENC, HEADS, FEAT))  # positions T 0, B 1, other dynamic 2, heads 3, F 4
BF = Spec((batch_dim, FEAT))
LABELS = Spec((batch_dim, TIME), "int32", sparse_dim=FEAT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", (1,)), ("batch", (1,)), ("T", (0,)), ("time", (0,)), ("t?", (0,)), ("time?", (0,)),
        ("F", (4,)), ("feature", (4,)), ("non_spatial", (4,)),
        ("spatial", (0, 2, 3)), ("s:0", (0,)), ("spatial:1", (2,)), ("s:-1", (3,)), ("Spatial:2", (3,)),
        ("dyn", (0, 2)), ("dynamic", (0, 2)), ("d:1", (2,)), ("dyn:0", (0,)), ("dynamic:-1", (2,)),
        ("static", (3, 4)), ("static:0", (3,)), ("static:-1", (4,)), ("spatial_except_time", (2, 3)),
        ("except_time", (2, 3, 4)), ("except_batch", (0, 2, 3, 4)), ("except_batch:1", (2,)), ("*", (0, 1, 2, 3, 4)),
        ("bt", (1, 0)), ("tf", (0, 4)), ("FTB", (4, 0, 1)), ("dim:2", (3,)), ("dim:5", (4,)),
        ("stag:encoder", (2,)), ("stag:ENC", (2,)), ("stag:heads", (3,)), ("tag:feature", (4,)), ("tag:extern", (0,)),
        ("stag-single:0:e", (0,)), ("stag-single:-1:e", (3,)),
        (0, (0,)), (-1, (4,)), (3, (3,)), (TIME, (0,)), (FEAT, (4,)), (batch_dim, (1,)), (Dim(5, "new"), ()),
        (["T", "F"], (0, 4)), (("F", "t", 0), (4, 0)), (["spatial", "F", "s:0"], (0, 2, 3, 4)), ([], ()),
        (None, ()), ("", ()),
    ],
)  # fmt: skip
def test_positions(text, expected):
    assert axes(SPEC, text) == expected


@pytest.mark.parametrize(
    ("spec", "text", "expected"),
    [
        (BF, "T?", ()), (BF, "dyn", ()), (BF, "spatial", ()), (BF, "F", (1,)),
        (LABELS, "F", ()), (LABELS, "static", ()), (LABELS, "spatial", (1,)), (LABELS, "tag:feature", ()),
        (Spec((TIME, FEAT)), batch_dim, ()), (Spec((TIME, FEAT)), "except_batch", (0, 1)),
    ],
)  # fmt: skip
def test_what_is_missing_is_empty(spec, text, expected):
    assert axes(spec, text) == expected


def test_a_renamed_axis_answers_to_both_names():
    spec = Spec((batch_dim, TIME.named("lstm-time"), FEAT))
    assert axes(spec, "stag:lstm") == axes(spec, "stag:extern_data") == axes(spec, TIME) == (1,)


def test_loop_axes_are_never_named():
    inside = SPEC.enter_loop(TIME)
    assert axes(inside, "T") == (2,) and axes(inside, "spatial") == (2, 3) and axes(inside, "*") == (1, 2, 3, 4)
    assert axes(inside, "except_batch") == (2, 3, 4) and axes(inside, "stag:extern_data") == ()
    assert axes(inside, 0) == (1,) and axes(inside, -1) == (4,) and axes(inside, "dyn:0") == (2,)


def test_one_axis():
    assert axis(SPEC, "T") == 0 and axis(SPEC, "stag:encoder") == 2


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        (SPEC, "spatial", "'spatial' is not a unique axis in [B"),
        (SPEC, "stag:nothing", "'stag:nothing' is not found in ["),
        (BF, "T", "no time axis in [B 'batch' size ?, F 'feature:data' size 5]"),
        (Spec((TIME,)), "B", "no batch axis"),
        (SPEC, "s:7", "'s:7' names no axis: 3 candidates in"),
        (SPEC, "s:x", "'s:x' names no axis"),
        (SPEC, "dim:9", "'dim:9' must name one axis, but 0 match"),
        (SPEC, 5, "5 must be an axis of ["),
        (SPEC, "spatail", "invalid axis 'spatail'; did you mean \"spatial\"?"),
        (SPEC, 1.5, "an axis must be a text, an int or a Dim, but is 1.5 instead"),
        (SPEC, True, "an axis must be a text, an int or a Dim, but is True instead"),
    ],
)
def test_errors_name_the_option_the_text_and_the_axes(spec, text, message):
    with pytest.raises(ConfigError) as caught:
        axis(spec, text, option="my_axis")
    assert message.replace("[B", "[") in caught.value.message.replace("[B", "[")
    assert caught.value.path in ("my_axis", "axis")


def test_description_says_what_each_axis_answers_to():
    assert describe(SPEC) == (
        "[T/spatial:0 'time:var:extern_data:data' size ?, B 'batch' size ?, spatial:1 'Encoder:conv:s0' size ?, "
        "spatial:2 'att_heads' size 2, F 'feature:data' size 5]"
    )
