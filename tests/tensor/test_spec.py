"""Specs: default roles, equality, changed copies, axes of loops."""

import pytest

from returnn_lite.tensor import AUTO, Dim, Spec, batch_dim
from returnn_lite.tensor.dim import FEATURE
from returnn_lite.tensor.spec import scalar, vector

TIME, OTHER = Dim(None, "time"), Dim(None, "other")
HEADS, FEAT = Dim(2, "heads"), Dim(5, "feat", kind=FEATURE)
CLASSES = Dim(7, "classes", kind=FEATURE)
BTF = Spec((batch_dim, TIME, FEAT))
TBHF = Spec((TIME, batch_dim, HEADS, FEAT))
LABELS = Spec((batch_dim, TIME), "int32", sparse_dim=CLASSES)


def names(spec, *positions):
    return [None if i is None else spec.dims[i].name for i in positions]


# --- roles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "time", "feature"),
    [
        (BTF, 1, 2),
        (TBHF, 0, 3),
        (LABELS, 1, None),
        (Spec((batch_dim, FEAT)), None, 1),
        (Spec((batch_dim, FEAT, TIME)), 2, 1),
        (Spec((batch_dim, TIME, OTHER)), 1, None),
        (Spec((HEADS, FEAT)), None, 1),
        (Spec((batch_dim,)), None, None),
        (Spec(()), None, None),
        (Spec((batch_dim, TIME, FEAT), time=None, feature=None), None, None),
        (Spec((batch_dim, TIME, FEAT), feature=1, time=None), None, 1),
        (Spec((batch_dim, TIME, FEAT), feature=-1, time=-2), 1, 2),
        (Spec((batch_dim, HEADS, FEAT), feature=HEADS), None, 1),
    ],
)
def test_role_axes(spec, time, feature):
    assert (spec.time, spec.feature) == (time, feature)


def test_what_a_spec_answers():
    assert BTF.rank == 3 and BTF.batch == 0 and BTF.dim == 5 and BTF.feature_dim is FEAT and BTF.time_dim is TIME
    assert LABELS.sparse and LABELS.dim == 7 and LABELS.feature_dim is CLASSES and not BTF.sparse
    assert Spec((TIME, FEAT)).batch is None and scalar().dim is None and scalar("int32").dtype == "int32"
    assert vector("bool").dims == (batch_dim,) and vector().time is None
    assert repr(BTF) == "[B, T:time(?), F:feat(5)] float32"
    assert repr(LABELS) == "[B, T:time(?)] int32 sparse_dim=classes(7)"


def test_spatial_and_dynamic_axes():
    assert TBHF.spatial == (0, 2) and TBHF.dynamic == (0,)
    assert Spec((batch_dim, TIME, OTHER, FEAT)).dynamic == (1, 2)
    assert Spec((batch_dim, TIME, OTHER), feature=2).spatial == (1, 2)  # a dynamic feature axis counts
    assert Spec((batch_dim, HEADS, FEAT)).spatial == (1,)


def test_equality_and_hash():
    again = Spec((batch_dim, TIME, FEAT), time=TIME, feature=FEAT)
    assert again == BTF and hash(again) == hash(BTF)
    different = [
        Spec((batch_dim, FEAT, TIME)), Spec((batch_dim, OTHER, FEAT)), BTF.with_dtype("int32"), BTF.roles(time=None),
        BTF.roles(feature=None), Spec((batch_dim, TIME, FEAT), "float32", loop=frozenset({TIME})),
    ]  # fmt: skip
    assert all(spec != BTF for spec in different) and BTF != "x"
    assert LABELS != Spec((batch_dim, TIME), "int32") and len({BTF, again, *different}) == 1 + len(different)


def test_memo_computes_once():
    spec, calls = Spec((batch_dim, FEAT)), []
    assert [spec.memo("key", lambda: calls.append(1)) for _ in range(3)] == [None] * 3 and len(calls) == 1


# --- changed copies ------------------------------------------------------------------------------------------------


def test_with_dims_keeps_roles_on_their_dims():
    moved = BTF.with_dims((FEAT, TIME, batch_dim))
    assert (moved.time, moved.feature, moved.batch) == (1, 0, 2)
    assert BTF.with_dims((batch_dim, FEAT)).time is None
    assert BTF.with_dims((batch_dim, OTHER, FEAT)).time is None
    assert BTF.with_dims((batch_dim, OTHER, FEAT), time=AUTO).time == 1
    assert BTF.with_dims((batch_dim, TIME, HEADS), feature=HEADS).feature == 2
    assert BTF.with_dims((batch_dim, FEAT, FEAT)).feature == 2  # the last of equal ones


def test_with_feature_and_dtype():
    assert BTF.with_feature(HEADS) == Spec((batch_dim, TIME, HEADS))
    dense = LABELS.with_dtype("float32").with_feature(FEAT)
    assert dense == BTF and LABELS.with_feature(FEAT).dims == (batch_dim, TIME, FEAT)
    sparse = Spec((batch_dim, TIME)).with_dtype("int32", CLASSES)
    assert sparse == LABELS and sparse.with_dtype("float32").sparse_dim is None


def test_permuted_moves_roles_along():
    spec = TBHF.permuted((1, 3, 0, 2))
    assert spec.dims == (batch_dim, FEAT, TIME, HEADS) and (spec.time, spec.feature) == (2, 1)
    assert TBHF.order(2) == (2, 0, 1, 3) and TBHF.enter_loop(TIME).order(3, 1) == (0, 3, 1, 2)


def test_without_gives_removed_roles_back():
    assert BTF.without([1]) == Spec((batch_dim, FEAT))
    assert names(TBHF.without([3]), TBHF.without([3]).feature) == ["heads"]
    assert TBHF.without([0]).time is None and TBHF.without([0, 2]).feature == 1
    two = Spec((batch_dim, TIME, OTHER, FEAT))
    assert names(two.without([1]), two.without([1]).time) == ["other"]
    assert two.without([1], time=None).time is not None and two.without([3], feature=AUTO).feature is None


# --- loops ---------------------------------------------------------------------------------------------------------


def test_a_frame_of_a_loop_and_back():
    frame = BTF.in_loop(TIME)
    assert frame == Spec((batch_dim, FEAT)) and frame.in_loop(TIME) is frame
    stacked = frame.with_loop(TIME)
    assert stacked.dims == (TIME, batch_dim, FEAT) and stacked.loop == {TIME}
    assert stacked.time is None and stacked.feature == 2
    assert stacked.in_loop(TIME) == frame
    outside = stacked.leave_loop(TIME)
    assert outside.loop == frozenset() and outside.time == 0 and outside.leave_loop(TIME) is outside


def test_leaving_a_loop_keeps_the_own_time_axis():
    spec = Spec((batch_dim, OTHER, FEAT)).with_loop(TIME)
    assert names(spec, spec.time, spec.leave_loop(TIME).time) == ["other", "other"]


def test_entering_a_loop_ends_the_roles_of_its_axis():
    inside = Spec((TIME, batch_dim, FEAT)).enter_loop(TIME)
    assert inside.loop == {TIME} and inside.time is None and inside.feature == 2 and inside.enter_loop(TIME) is inside
    two = Spec((TIME, batch_dim, OTHER, FEAT)).enter_loop(TIME)
    assert names(two, two.time) == ["other"] and BTF.enter_loop(OTHER) is BTF


def test_loop_axes_are_no_spatial_or_dynamic_axes():
    spec = Spec((batch_dim, HEADS, FEAT)).with_loop(TIME)
    assert spec.dynamic == () and spec.spatial == (2,)
