"""Alignment: which axes correspond, the common layout, broadcasting and concatenation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import common, concat_features, expand, joined, match, merged_lengths, place, sizes
from returnn_lite.tensor.dim import FEATURE

TIME, ENC = Dim(None, "time"), Dim(None, "enc")
HEADS, FEAT, ONE = Dim(2, "heads"), Dim(5, "feat", kind=FEATURE), Dim(1, "one", kind=FEATURE)
B = batch_dim
LENGTHS = {TIME: Lengths.of(torch.tensor([4, 2])), ENC: Lengths.of(torch.tensor([1, 3]))}
SIZES = {B: 2, TIME: 4, ENC: 3}


def dense(*dims):
    return Spec(dims)


def tensor(*dims):
    shape = [SIZES[d] if d in SIZES else d.size for d in dims]
    return Tensor(torch.randn(shape, generator=torch.Generator().manual_seed(len(dims))), Spec(dims), LENGTHS)


# --- which axes correspond -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((B, TIME, FEAT), (TIME, B, FEAT), (1, 0, 2)),
        ((B, FEAT), (B, TIME, FEAT), (0, 2)),
        ((B, TIME, FEAT), (B, FEAT), (0, None, 1)),
        ((B, TIME), (B, ENC), (0, None)),  # two time axes never correspond, whatever their lengths
        ((B, Dim(5, "a")), (B, TIME, FEAT), (0, 2)),  # static axes by size
        ((B, HEADS), (B, FEAT), (0, None)),
        ((B, TIME, ONE), (B, TIME, FEAT), (0, 1, 2)),
        ((FEAT, Dim(5, "x")), (Dim(5, "y"), FEAT), (1, 0)),  # equal ones first
        ((B, Dim(None, "undefined"), FEAT), (B, TIME, FEAT), (0, 1, 2)),
        ((), (B, TIME), ()),
    ],
)
def test_match(source, target, expected):
    assert match(dense(*source), dense(*target)) == expected


def test_axes_of_size_1_stand_alone_from_behavior_version_11():
    source, target = dense(B, TIME, ONE), dense(B, TIME, FEAT)
    assert match(source, target, 10) == (0, 1, 2) and match(source, target, 11) == (0, 1, None)


# --- the common layout ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([(B, TIME, FEAT), (B, FEAT)], (B, TIME, FEAT)),
        ([(B, FEAT), (TIME, B, FEAT)], (TIME, B, FEAT)),
        ([(B, TIME, FEAT), (FEAT,)], (B, TIME, FEAT)),
        ([(B, TIME), (B, FEAT)], (B, TIME, FEAT)),
        ([(B, TIME, ONE), (B, TIME, FEAT)], (B, TIME, FEAT)),
        ([(TIME, FEAT), (B, FEAT)], (B, TIME, FEAT)),
        ([(B, TIME, FEAT), (B, ENC, FEAT)], (B, TIME, ENC, FEAT)),
        ([(B, TIME, FEAT), ()], (B, TIME, FEAT)),
        ([(B, TIME, FEAT), (B, HEADS, FEAT)], (B, TIME, HEADS, FEAT)),
    ],
)
def test_common_layout(specs, expected):
    layout = common(tuple(dense(*dims) for dims in specs))
    assert layout.dims == expected


SIX, SEVEN, OTHER = Dim(6, "six"), Dim(7, "seven", kind=FEATURE), Dim(None, "other")


@pytest.mark.parametrize(
    ("layout", "spec", "expected"),
    [
        ((TIME, FEAT), (B, FEAT), (B, TIME, FEAT)),  # batch in front
        ((B, TIME, FEAT), (B, SIX), (B, TIME, FEAT, SIX)),  # a feature axis behind the other one
        ((B, FEAT, TIME), (B, SIX), (B, FEAT, SIX, TIME)),
        ((B, TIME, FEAT), (SEVEN, B, FEAT), (B, TIME, FEAT, SEVEN)),  # one that could be
        ((B, FEAT, TIME), (SEVEN, B, FEAT), (B, FEAT, SEVEN, TIME)),
        ((B, TIME, HEADS, FEAT), (B, ENC, FEAT), (B, TIME, ENC, HEADS, FEAT)),  # dynamic behind dynamic
        ((B, TIME, ENC, FEAT), (B, OTHER, FEAT), (B, TIME, ENC, OTHER, FEAT)),
        ((B, TIME, HEADS, FEAT), (B, SIX, FEAT), (B, TIME, HEADS, SIX, FEAT)),  # static behind what is not batch
        ((HEADS, B, FEAT), (B, SIX, FEAT), (HEADS, SIX, B, FEAT)),
        ((B, FEAT, TIME), (B, SIX, FEAT), (B, FEAT, TIME, SIX)),
        ((B, FEAT), (SIX, FEAT), (B, SIX, FEAT)),  # else in front of the features
    ],
)
def test_where_a_missing_axis_goes(layout, spec, expected):
    found = common((dense(*layout), dense(*spec)))
    assert found.dims == expected and found.feature_dim == FEAT


def test_features_that_the_layout_lacks_are_those_of_the_common_one():
    found = common((dense(B, TIME), dense(B, FEAT)))
    assert found.dims == (B, TIME, FEAT) and found.feature == 2


def test_the_feature_axes_of_different_sizes_stand_side_by_side():
    three = Dim(3, "three", kind=FEATURE)
    assert common((dense(B, TIME, FEAT), dense(B, TIME, three))).dims == (B, TIME, FEAT, three)


def test_the_common_layout_keeps_loop_axes_apart():
    first = dense(B, FEAT).with_loop(TIME)
    layout = common((first, dense(B, FEAT)))
    assert layout.dims == (TIME, B, FEAT) and layout.loop == {TIME} and layout.time is None
    layout = common((first, dense(B, ENC, FEAT)))
    assert layout.dims == (TIME, B, ENC, FEAT) and layout.time == 2


# --- placing -------------------------------------------------------------------------------------------------------


def test_place_permutes_and_inserts_axes_of_size_1():
    x = tensor(B, FEAT)
    placed = place(x, dense(FEAT, TIME, B))
    assert placed.shape == (5, 1, 2) and torch.equal(placed[:, 0], x.data.t())
    assert place(x, dense(B, FEAT)) is x.data
    assert expand(x, dense(B, TIME, FEAT), (2, 4, 5)).shape == (2, 4, 5)


def test_what_has_no_place_is_an_error():
    with pytest.raises(ConfigError, match=r"does not fit into .*no place for \[enc\(\?\)\]"):
        place(tensor(B, ENC, FEAT), dense(B, TIME, FEAT))


DIMS = [B, TIME, ENC, HEADS, FEAT]
SUBSETS = st.lists(st.sampled_from(DIMS), unique=True, max_size=5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(first=SUBSETS, second=SUBSETS)
def test_sums_of_any_two_layouts_are_sums_by_axis(first, second):
    """x + y in the common layout equals the sum by einsum letters, whatever the axis orders."""
    x, y = tensor(*first), tensor(*second)
    layout = common((x.spec, y.spec))
    assert set(layout.dims) == {*first, *second}
    total = place(x, layout) + place(y, layout)
    assert total.shape == sizes(layout, [x, y])
    letters = {d: "abcde"[i] for i, d in enumerate(DIMS)}
    text = lambda dims: "".join(letters[d] for d in dims)  # noqa: E731
    ones = [torch.ones([SIZES[d] if d in SIZES else d.size for d in dims]) for dims in (first, second)]
    product = f"{text(first)},{text(second)}->{text(layout.dims)}"
    expected = torch.einsum(product, x.data, ones[1]) + torch.einsum(product, ones[0], y.data)
    torch.testing.assert_close(total, expected)


# --- several tensors -----------------------------------------------------------------------------------------------


def test_joined_knows_the_lengths_of_all_sources():
    x, y = Tensor(torch.ones(2, 4), dense(B, TIME), {TIME: LENGTHS[TIME]}), tensor(B, ENC)
    assert set(merged_lengths([x, y])) == {TIME, ENC}
    out = joined(torch.ones(2, 4, 3), dense(B, TIME, ENC), [x, y])
    assert out.length(ENC).values.tolist() == [1, 3]
    with pytest.raises(ConfigError, match="is not known from the sources"):
        sizes(dense(B, Dim(None, "new")), [x])


def test_concat_repeats_what_lacks_an_axis():
    x, y = tensor(B, TIME, FEAT), tensor(B, HEADS)
    out = concat_features([x, y])
    assert out.spec.dims == (B, TIME, FEAT + HEADS) and out.spec.dim == 7
    torch.testing.assert_close(out.data[:, :, :5], x.data)
    torch.testing.assert_close(out.data[:, :, 5:], y.data.unsqueeze(1).expand(2, 4, 2))
    assert concat_features([x]) is x


def test_concat_follows_the_order_of_the_largest_source():
    x, y = tensor(B, FEAT), tensor(TIME, B, HEADS)
    out = concat_features([x, y])
    assert out.spec.dims[:2] == (TIME, B) and out.spec.dim == 7
    torch.testing.assert_close(out.data[1, :, :5], x.data)


def test_concat_of_equal_feature_dims_doubles_them():
    x = tensor(B, TIME, FEAT)
    assert concat_features([x, x, x]).shape == (2, 4, 15)


def test_only_dense_sources_of_one_dtype_are_concatenated():
    x = tensor(B, TIME, FEAT)
    sparse = Tensor(torch.zeros(2, 4, dtype=torch.int32), Spec((B, TIME), "int32", sparse_dim=FEAT), LENGTHS)
    with pytest.raises(ConfigError, match="only if all are dense"):
        concat_features([x, sparse])
    halves = Tensor(x.data.to(torch.float64), x.spec.with_dtype("float64"), LENGTHS)
    with pytest.raises(ConfigError, match="must have one dtype"):
        concat_features([x, halves])
