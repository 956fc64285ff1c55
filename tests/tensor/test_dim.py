"""Dims: who equals whom, the arithmetic of derived lengths, names and kinds."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.tensor import Dim, batch_dim
from returnn_lite.tensor.dim import BATCH, FEATURE, SPATIAL

exact = settings(deadline=None, max_examples=60, derandomize=True)


def value(dim, lengths):
    """The number of a (derived) Dim for given numbers of its base Dims."""
    return lengths[dim] if dim in lengths else dim.combine(lambda d: value(d, lengths))


@pytest.fixture
def time():
    return Dim(None, "time")


def test_equal_only_to_itself():
    assert Dim(5, "a") != Dim(5, "a") and Dim(None, "time") != Dim(None, "time")
    dim = Dim(5, "a")
    assert dim == dim and copy.copy(dim) is dim and copy.deepcopy({"x": dim})["x"] is dim
    assert dim != 5 and len({dim, dim, Dim(5, "a")}) == 2


def test_defaults():
    assert Dim().name == "dynamic" and Dim(3).name == "static3" and Dim(3).kind == SPATIAL
    assert Dim().dynamic and not Dim(3).dynamic and Dim(0).size == 0 and not Dim(0).dynamic
    assert batch_dim.is_batch and batch_dim.kind == BATCH and not batch_dim.dynamic
    assert repr(Dim(3, "x")) == "x(3)" and repr(Dim(None, "t")) == "t(?)"


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d.ceildiv(2),
        lambda d: d + 1,
        lambda d: 1 + d,
        lambda d: d - 2,
        lambda d: d * 3,
        lambda d: 3 * d,
        lambda d: d // 2,
        lambda d: d.window(3, 2),
        lambda d: (d + 1).ceildiv(2) * 2,
        lambda d: d.clipped(4),
    ],
)
def test_equal_arithmetic_gives_equal_dims(make, time):
    assert make(time) == make(time) and hash(make(time)) == hash(make(time))
    assert make(time) != make(Dim(None, "time")) and make(time) != time


def test_arithmetic_without_effect_gives_the_dim_itself(time):
    for same in (time + 0, 0 + time, time * 1, 1 * time, time.ceildiv(1), time // 1, time - 0, time.window(1)):
        assert same is time


def test_canonical_forms(time):
    other = Dim(None, "other")
    assert (time + 1) + 2 == time + 3
    assert time.ceildiv(2).ceildiv(3) == time.ceildiv(6)
    assert (time * 2) * 3 == time * 6
    assert time * other == other * time
    assert time + other != other + time  # a concatenation has an order
    assert (time - 2) + 2 != time  # the clip at 0 in between counts


def test_names_of_derived_dims(time):
    dims = (time.ceildiv(2), time + 1, 1 + time, time - 1, time * 2, time + time.ceildiv(2), time // 2)
    assert [d.name for d in dims] == ["⌈time/2⌉", "time+1", "1+time", "time+-1", "time*2", "time+(⌈time/2⌉)", "time//2"]


def test_static_sizes_and_kinds_of_derived_dims():
    five, three = Dim(5, "a", kind=FEATURE), Dim(3, "b", kind=FEATURE)
    assert (five + three).size == 8 and (five + three).kind == FEATURE
    assert (five * 2).size == 10 and (five // 2).size == 2 and five.ceildiv(2).size == 3 and (five - 7).size == 0
    assert (five + Dim(None, "t")).size is None
    assert (five + Dim(2, "s")).kind == SPATIAL


def test_other_names_and_kinds_stay_equal(time):
    named = time.named("enc")
    assert named == time and hash(named) == hash(time) and named.name == "enc" and named.base is time
    assert time.as_kind(FEATURE) == time and time.as_kind(FEATURE).kind == FEATURE and time.as_kind(SPATIAL) is time
    assert named.ceildiv(2) == time.ceildiv(2)


@exact
@given(n=st.integers(0, 12), size=st.integers(1, 5), stride=st.integers(1, 4))
def test_window_counts_the_windows_that_fit(n, size, stride):
    time = Dim(None, "time")
    starts = range(0, max(n - size + 1, 0), stride)
    assert value(time.window(size, stride), {time: n}) == len(starts)


@exact
@given(n=st.integers(0, 20), a=st.integers(1, 5), b=st.integers(1, 5), c=st.integers(-4, 4))
def test_lengths_by_the_arithmetic(n, a, b, c):
    time = Dim(None, "time")
    lengths = {time: n}
    assert value(time.ceildiv(a).ceildiv(b), lengths) == math.ceil(math.ceil(n / a) / b)
    assert value((time + c) * a, lengths) == max(n + c, 0) * a
    assert value(((time - a) + b) // a, lengths) == (max(n - a, 0) + b) // a
    assert value(time.clipped(a), lengths) == min(n, a)
    assert value(time * time, lengths) == n * n
    assert value((time + a) + time, lengths) == 2 * n + a
