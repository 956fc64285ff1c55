"""Axes added, merged, joined, padded; frames moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import random, same, sized, values

B, F, G, K = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="G"), rf.Dim(5, name="K")
LENGTHS = np.array([5, 2, 4])
T = sized(LENGTHS, B)
MASK = np.arange(5) < LENGTHS[:, None]


def test_axes_added_and_taken_off():
    x = random([B, F], feature_dim=F)
    assert rf.expand_dim(x, K).dims == (B, K, F) and rf.expand_dim(random([B, F]), K).dims == (B, F, K)
    assert rf.expand_dim(random([B, T, F]), sized([1, 1, 2], B)).dims[1] is T and rf.expand_dims(x, [G, K]).dims[1] is G
    one = rf.Dim(1, name="one")
    assert rf.squeeze(rf.expand_dim(x, one), one).dims == (B, F)
    for call, text in ((lambda: rf.squeeze(x, F), "must have the size 1"), (lambda: rf.expand_dim(x, F), "already")):
        with pytest.raises(ConfigError, match=text):
            call()


def test_axes_merged_and_split():
    x = random([B, F, G, K], feature_dim=G)
    merged, dim = rf.merge_dims(x, dims=[K, F])
    same(merged, (B, dim, G), values(x).transpose(0, 3, 1, 2).reshape(3, 20, 2))
    assert dim is K * F and merged.feature_dim is G and rf.merge_dims(x, dims=[G, K])[0].feature_dim is G * K
    same(rf.split_dims(merged, axis=dim, dims=[K, F]), (B, K, F, G), values(x).transpose(0, 3, 1, 2))
    _, flat = rf.merge_dims(random([B, T]), dims=[B, T])
    assert flat.padded_size() == 15 and not flat.need_masking()
    unknown = rf.Dim(None, name="unknown")
    parts = rf.split_dims(random([B, sized([6, 2, 4], B), G]), axis=random([B]).dims[0], dims=[unknown])
    assert parts.dims[0] is unknown and unknown.dimension == 3
    with pytest.raises(ConfigError, match="of 4 entries cannot be reshaped"):
        rf.split_dims(random([F]), axis=F, dims=[B, G])


def test_axes_replaced():
    x = random([B, T, F], feature_dim=F)
    y, new = rf.replace_dim(x, in_dim=T)
    assert new != T and new.dyn_size.tolist() == LENGTHS.tolist() and y.dims == (B, new, F)
    longer, shorter = rf.Dim(6, name="longer"), rf.Dim(2, name="shorter")
    found = rf.replace_dim_v2(x, in_dim=F, out_dim=longer)
    same(found, (B, T, longer), np.pad(values(x), [(0, 0), (0, 0), (0, 2)]))
    assert found.feature_dim is longer
    same(rf.replace_dim_v2(x, in_dim=F, out_dim=shorter), (B, T, shorter), values(x)[..., :2])
    with pytest.raises(ConfigError, match="cannot become"):
        rf.replace_dim_v2(x, in_dim=F, out_dim=longer, allow_expand=False)


def test_a_given_axis_for_padded_axes_that_are_joined():
    x, other = random([B, T, F]), random([B, S := sized([1, 4, 2], B), F])
    joined = rf.Dim(None, name="joined")
    found, _ = rf.concat((x, T), (other, S), handle_dynamic_dims=False, out_dim=joined)
    same(found, (B, joined, F), np.concatenate([values(x), values(other)], 1))
    assert not joined.need_masking() and joined.padded_size() == 9


@pytest.mark.parametrize("mode, numpy_mode", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_features_that_are_padded_stay_features(mode, numpy_mode):
    x = random([B, T, F], feature_dim=F)
    found, (out,) = rf.pad(x, axes=[F], padding=[(1, 2)], mode=mode)
    same(found, (B, T, out), np.pad(values(x), [(0, 0), (0, 0), (1, 2)], mode=numpy_mode))
    assert found.feature_dim is out


def frames(tensor, dim, b):
    """The valid frames of a sequence."""
    return values(tensor.copy_transpose([B, dim, *(d for d in tensor.dims if d not in (B, dim))]))[
        b, : dim.dyn_size[b] if dim.need_masking() else None
    ]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=3), st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_joined_frames_follow_each_other(first, second):
    a, b = sized(first, B, "a"), sized(second, B, "b")
    x, y = random([B, a, F]), random([B, F, b], 1)
    found, dim = rf.concat((x, a), (y, b))
    assert dim is a + b and found.dims == (B, dim, F)
    for i in range(3):
        want = np.concatenate([frames(x, a, i), frames(y, b, i)])
        np.testing.assert_array_equal(frames(found, dim, i), want)


def test_concat_of_other_axes():
    x, y = random([B, F], feature_dim=F), random([G, B], 1, feature_dim=G)
    found = rf.concat_features(x, y)
    same(found, (B, F + G), np.concatenate([values(x), values(y).T], 1))
    assert found.feature_dim is F + G
    found, dim = rf.concat((x, F), (random([G], 2), G), allow_broadcast=True)
    assert found.raw_tensor.shape == (3, 6)
    with pytest.raises(ConfigError, match="other axes must be the same"):
        rf.concat((x, F), (random([G]), G))
    plain, dim = rf.concat((random([B, T]), T), (random([B, T]), T), handle_dynamic_dims=False)
    assert plain.raw_tensor.shape == (3, 10) and not dim.need_masking()


def test_stack_and_split():
    x = random([B, F])
    stacked, dim = rf.stack([x, (x * 2.0).copy_transpose([F, B])])
    same(stacked, (dim, B, F), np.stack([values(x), 2 * values(x)]))
    same(rf.unstack(stacked, axis=dim)[1], (B, F), 2 * values(x))
    first, second = rf.split(x, axis=F, out_dims=[rf.Dim(1, name="a"), rf.Dim(3, name="b")])
    same(second, (B, second.dims[1]), values(x)[:, 1:])
    for call, text in (
        (lambda: rf.stack([]), "at least one"), (lambda: rf.split(x, axis=F, out_dims=[G]), "must add up"),
        (lambda: rf.stack([x, random([B])]), "the same axes"),
        (lambda: rf.unstack(random([B, T]), axis=T), "fixed size"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            call()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(0, 2), st.integers(0, 2))
def test_padding_follows_the_last_valid_frame(lengths, left, right):
    time = sized(lengths, B)
    x = random([B, time, F], feature_dim=F)
    found, (dim,) = rf.pad(x, axes=[time], padding=[(left, right)], value=9.0)
    assert dim == left + time + right and found.feature_dim is F
    for i in range(3):
        np.testing.assert_array_equal(
            frames(found, dim, i), np.pad(frames(x, time, i), [(left, right), (0, 0)], constant_values=9)
        )


def test_padding_of_older_versions(version):
    version(20)
    found, (dim,) = rf.pad(random([B, T]), axes=[T], padding=[(1, 2)], value=5.0)
    assert not dim.need_masking() and found.raw_tensor.shape == (3, 8) and (values(found)[:, -2:] == 5).all()


def test_padding_modes():
    x = random([B, F, G])
    found, (dim,) = rf.pad(x, axes=[F], padding=[(2, 1)], mode="reflect")
    same(found, (B, dim, G), np.pad(values(x), [(0, 0), (2, 1), (0, 0)], mode="reflect"))
    value = random([B, G], 3)
    found, (dim,) = rf.pad(x, axes=[F], padding=[(0, 1)], value=value)
    same(found, (B, dim, G), np.concatenate([values(x), values(value)[:, None]], 1))
    with pytest.raises(ConfigError, match="mode 'reflect' does not support lengths"):
        rf.pad(random([B, T]), axes=[T], padding=[(0, 1)], mode="reflect")


def test_slices():
    x = random([B, T, F])
    for options, part in (
        ({"start": 2}, lambda v: v[2:]), ({"end": -1}, lambda v: v[:-1]), ({"size": 2}, lambda v: v[:2]),
        ({"start": 1, "end": 2}, lambda v: v[1:2]),
    ):  # fmt: skip
        found, dim = rf.slice(x, axis=T, **options)
        for b in (0, 2):
            np.testing.assert_array_equal(frames(found, dim, b), part(frames(x, T, b)))
    assert rf.slice(x, axis=T)[1] is T and rf.slice(x, axis=T, start=1)[1] is T.sub_left(1)
    start = rf.convert_to_tensor(np.array([1, 0, 2], "int32"), dims=[B])
    found, dim = rf.slice(x, axis=T, start=start)
    np.testing.assert_array_equal(frames(found, dim, 2), values(x)[2, 2:4])
    for options in ({"step": -1}, {"start": -1}, {"start": 3, "size": 9}):
        with pytest.raises(ConfigError, match="slice of"):
            rf.slice(x, axis=T, **options)


def test_shifts_and_reverse():
    x = random([B, T])
    for b, n in enumerate(LENGTHS):
        v = values(x)[b, :n]
        np.testing.assert_array_equal(values(rf.shift_right(x, axis=T, pad_value=7.0))[b, :n], [7, *v[:-1]])
        left = values(rf.shift_left(x, axis=T, pad_value=7.0, amount=2))[b, :n]
        np.testing.assert_array_equal(left, [*v[2:], 7, 7])
        np.testing.assert_array_equal(values(rf.reverse_sequence(x, axis=T))[b, :n], v[::-1])


def test_windows():
    x, w = random([B, T, F], feature_dim=F), rf.Dim(3, name="window")
    found, dim = rf.window(x, spatial_dim=T, window_dim=w, pad_value=0.0)
    assert found.dims == (B, w, T, F) and dim is T and found.feature_dim is F
    padded = np.pad(values(x)[2, :4], [(1, 1), (0, 0)])
    np.testing.assert_array_equal(values(found)[2, :, :4], np.stack([padded[i : i + 4] for i in range(3)]))
    found, dim = rf.window(x, spatial_dim=T, window_dim=w, stride=2)
    assert found.dims == (B, T.ceildiv_right(2), w, F)
    found, dim = rf.window(x, spatial_dim=T, window_dim=w, padding="valid")
    assert dim.dyn_size.tolist()[0] == 3 and found.raw_tensor.shape == (3, 3, 3, 4)


def test_repetitions_of_all_frames():
    found, dim = rf.repeat(random([B, T]), in_spatial_dim=T, repeats=2)
    assert dim.dyn_size.tolist() == [10, 4, 8]
    np.testing.assert_array_equal(values(found)[1, :4], values(random([B, T]))[1, [0, 0, 1, 1]])


def test_repetitions():
    x, counts = random([B, T]), np.random.RandomState(0).randint(0, 3, (3, 5)).astype("int32")
    found, dim = rf.repeat(x, in_spatial_dim=T, repeats=rf.convert_to_tensor(counts, dims=[B, T]))
    for b, n in enumerate(LENGTHS):
        want = np.repeat(values(x)[b, :n], counts[b, :n])
        np.testing.assert_array_equal(values(found)[b, : dim.dyn_size[b]], want)
