"""Loops, conditions, states, arrays of tensors, nested structures."""

import numpy as np
import pytest
import tree

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import random, same, sized, values

B, F = rf.Dim(3, name="B"), rf.Dim(2, name="F")
LENGTHS = [4, 1, 3]
T = sized(LENGTHS, B)


def test_states_are_dicts_with_attributes():
    class Mine(rf.State):
        def __init__(self, *args, h=None):
            super().__init__(*args)
            if not args:
                self.h = h

    state = Mine(h=random([B]))
    doubled = tree.map_structure(lambda x: x * 2.0, state)
    assert type(doubled) is Mine and doubled["h"] is doubled.h
    same(doubled.h, (B,), 2 * values(state.h))
    nested = rf.State(a=1, b=rf.State(c=[random([B])]))
    assert nested.b.c[0].dims == (B,) and len(nested.flatten_tensors()) == 1 and rf.State(5).state == 5
    del nested.a
    assert list(nested) == ["b"] and rf.State({"x": 1}, y=2) == {"x": 1, "y": 2}
    with pytest.raises(AttributeError, match="known: 'b'"):
        nested.missing  # noqa: B018


def test_arrays():
    x = random([B, T, F], feature_dim=F)
    array = rf.TensorArray.unstack(x, axis=T)
    same(array[-1], (B, F), values(x)[:, -1])
    longer, other = array.push_back(array[0]), array.push_back(array[1])
    assert len(array) == 4 and len(longer) == len(other) == 5
    same(longer[4], (B, F), values(x)[:, 0])
    same(other[4], (B, F), values(x)[:, 1])
    stacked = array.stack(axis=T)
    same(stacked, (T, B, F), values(x).transpose(1, 0, 2))
    assert stacked.feature_dim is F and list(array)[1].dims == (B, F)
    empty = rf.TensorArray(rf.Tensor("x", [B], "int32")).stack(axis=rf.Dim(None, name="none"))
    assert empty.raw_tensor.shape == (0, 3) and empty.dtype == "int32"
    for call, text in (
        (lambda: array.push_back(random([B])), "does not have the axes"),
        (lambda: array[9], "none at 9"),
    ):
        with pytest.raises(ConfigError, match=text):
            call()


def test_while_loop():
    def body(state):
        grown, dim = rf.cum_concat_step(rf.cast(state.i, "float32"), prev_accum=state.seen, axis=state.dim)
        return rf.State(i=state.i + 1, seen=grown, dim=dim, nothing=None)

    start = rf.Dim(0, name="start")
    initial = rf.State(i=rf.constant(0, dims=()), seen=rf.zeros([start]), dim=start, nothing=None)
    found = rf.while_loop(lambda state: state.i < 4, body, initial)
    assert values(found.seen).tolist() == [0, 1, 2, 3] and found.dim.dimension == 4 and type(found) is rf.State


WRONG = {
    "axes": (lambda s: {"x": random([F])}, "must keep its axes"),
    "structure": (lambda s: {"y": s["x"]}, "must keep its structure"),
    "number": (lambda s: {"x": 3}, "use rf.convert_to_tensor"),
    "feature": (lambda s: {"x": random([B], feature_dim=B)}, "must keep its `feature_dim`"),
}


@pytest.mark.parametrize("body, text", WRONG.values(), ids=WRONG)
def test_what_a_loop_must_keep(body, text):
    with pytest.raises(ConfigError, match=text):
        rf.while_loop(lambda s: True, body, {"x": random([B])})


def test_conditions():
    x = random([B])
    assert rf.cond(rf.convert_to_tensor(1) > 0, lambda: 1, lambda: 1 / 0) == 1
    for call in (lambda: rf.cond(x > 0, None, None), lambda: rf.while_loop(lambda s: x > 0, None, (x,))):
        with pytest.raises(ConfigError, match="must be a scalar bool tensor"):
            call()
    rf.assert_(x > -100, "fine")
    with pytest.raises(ConfigError, match="too small"):
        rf.assert_(x > 100, "too small")


def test_scan_over_frames_leaves_ended_sequences_alone():
    x = random([B, T, F], feature_dim=F)
    template = rf.Tensor("y", [B, F], "float32", feature_dim=F)
    ys, last, dim = rf.scan(
        spatial_dim=T, xs=x, initial=rf.zeros([B, F], feature_dim=F), ys=template, body=lambda x, s: (s + x, s + x)
    )
    sums = values(x).cumsum(1)
    assert dim is T and ys.dims == (T, B, F)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(values(ys)[:n, b], sums[b, :n], rtol=1e-5)
        np.testing.assert_allclose(values(last)[b], sums[b, n - 1], rtol=1e-5)


def test_scan_as_long_as_a_condition_holds():
    limit = rf.convert_to_tensor(np.array([2, 0, 3], "int32"), dims=[B])
    options = dict(initial=rf.zeros([B], dtype="int32"), cond_dims=[B], ys=rf.Tensor("y", [B], "int32"))
    options |= {"cond": lambda _, s: s < limit, "body": lambda _, s: (s * 10, s + 1)}
    ys, last, dim = rf.scan(**options)
    assert dim.dyn_size.tolist() == [2, 0, 3] and ys.dims == (dim, B) and values(ys)[:, 2].tolist() == [0, 10, 20]
    own = rf.Dim(None, name="own")
    _, _, dim = rf.scan(**options, cond_before_body=False, spatial_dim=own)
    assert dim is own and own.dyn_size.tolist() == [2, 1, 3]
    assert rf.scan(**options, max_seq_len=2)[2].dyn_size.tolist() == [2, 0, 2]
    with pytest.raises(ConfigError, match="`cond_dims`"):
        rf.scan(**{**options, "cond_dims": None})
    with pytest.raises(ConfigError, match="`spatial_dim` of known size"):
        rf.scan(body=lambda x, s: (x, s))
    with pytest.raises(ConfigError, match="does not have the axes") as caught:
        rf.scan(**{**options, "ys": rf.Tensor("y", [F], "int32")})
    assert str(caught.value).startswith(__file__)  # not a file of the package that maps structures


# --- nested structures ------------------------------------------------------------------------------------------------

K = rf.Dim(3, name="beam")
HISTORY = sized([[4, 2, 3], [1, 4, 2], [2, 2, 1]], [B, K], "history")


def test_gather_of_structures():
    x, y, z = random([B, K, HISTORY]), random([K, B]), random([B])
    source = np.array([[2, 0], [1, 1], [0, 0]])
    new = rf.Dim(2, name="new")
    indices = rf.convert_to_tensor(source, dims=[B, new], sparse_dim=K)
    state = rf.State(x=x, y=y, z=z, axis=HISTORY, beam=K, more=[None, {"y": y}])
    found = rf.nested.gather_nested(state, indices=indices)
    sizes = values(HISTORY.dyn_size_ext)[[[0], [1], [2]], source]
    assert found.axis.dyn_size.tolist() == sizes.tolist() and found.z is z and found.more[0] is None
    assert found.beam is new and found.x.dims == (B, new, found.axis)
    np.testing.assert_array_equal(values(found.y), values(y).T[[[0], [1], [2]], source].T)
    np.testing.assert_array_equal(values(found.x), values(x)[[[0], [1], [2]], source][:, :, : found.axis.padded_size()])


def test_choice_between_structures():
    a, b = sized([3, 1, 2], B, "a"), sized([1, 4, 1], B, "b")
    x, y = random([B, a]), random([B, b], 1)
    mask = rf.convert_to_tensor(np.array([True, False, True]), dims=[B])
    found = rf.nested.where_nested({"x": x, "d": a}, {"x": y, "d": b}, condition=mask)
    assert found["d"].dyn_size.tolist() == [3, 4, 2] and found["x"].dims == (B, found["d"])
    np.testing.assert_array_equal(values(found["x"])[1], values(y)[1])
    np.testing.assert_array_equal(values(found["x"])[0, :3], values(x)[0])
    filled = rf.nested.mask_nested({"x": x}, mask=mask, mask_value=0)
    assert (values(filled["x"])[1] == 0).all()
    with pytest.raises(ConfigError, match="must be the same"):
        rf.nested.mask_nested({"x": x}, mask=mask, mask_value={"y": x})


def test_selection_of_structures_and_back():
    x, y, z = random([B, K, HISTORY, F]), random([B, K]), random([B])
    rows = np.array([[True, False, True], [False, False, False], [False, True, True]])
    mask = rf.convert_to_tensor(rows, dims=[B, K])
    state = rf.State(x=x, y=y, z=z, axis=HISTORY)
    found, dim, dims = rf.nested.masked_select_nested(state, mask=mask, dims=[B, K])
    assert (
        int(dim.get_dim_value()) == 4 and found.axis.dyn_size.tolist() == [4, 3, 2, 1] and dims[HISTORY] is found.axis
    )
    np.testing.assert_array_equal(values(found.y), values(y)[rows])
    assert found.z.dims == (dim,)
    changed = rf.State(x=found.x * 2.0, y=found.y, z=found.z, axis=found.axis)
    backup = rf.State(x=x, y=y, z=rf.expand_dim(z, K), axis=HISTORY)
    back = rf.nested.masked_scatter_nested(
        changed, backup, mask=mask, dims=[B, K], in_dim=dim, masked_select_dim_map=dims
    )
    assert back.axis.dyn_size.tolist() == HISTORY.dyn_size.tolist() and back.axis in back.x.dims
    valid = values(back.axis.get_mask())[..., None]
    want = np.where(rows[..., None, None], 2 * values(x), values(x))
    np.testing.assert_allclose(values(back.x) * valid, want * valid)


def test_scatter_where_only_the_selected_have_grown():
    """States of a search in which some hypotheses get one more frame: two fixed sizes become one with sizes."""
    old = rf.Dim(1, name="history")
    x = random([B, K, old, F])
    rows = np.array([[True, False, True], [False, False, False], [False, True, True]])
    mask = rf.convert_to_tensor(rows, dims=[B, K])
    found, dim, dims = rf.nested.masked_select_nested(rf.State(x=x, axis=old), mask=mask, dims=[B, K])
    assert found.axis is old and found.x.dims == (dim, old, F)
    longer, axis = rf.concat((found.x, old), (found.x * 2.0, old))
    for with_axis in (True, False):
        grown, backup = rf.State(x=longer), rf.State(x=x)
        if with_axis:
            grown.axis, backup.axis = axis, old
        back = rf.nested.masked_scatter_nested(
            grown, backup, mask=mask, dims=[B, K], in_dim=dim, masked_select_dim_map=dims
        )
        (new,) = [axis for axis in back.x.dims if axis not in (B, K, F)]
        assert not with_axis or back.axis is new
        sizes = new.get_size_tensor().copy_compatible_to_dims_raw([B, K])
        np.testing.assert_array_equal(sizes, np.where(rows, 2, 1))
        raw = values(back.x.copy_transpose([B, K, new, F]))
        np.testing.assert_allclose(raw[:, :, :1], values(x))
        np.testing.assert_allclose(raw[rows][:, 1], 2 * values(x)[rows][:, 0])
