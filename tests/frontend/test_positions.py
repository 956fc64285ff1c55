"""Entries picked, put and selected by position."""

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


def test_gather():
    x = random([B, K, F], feature_dim=F)
    own = rf.convert_to_tensor(np.array([[4, 0], [1, 1], [2, 3]], "int32"), dims=[B, G], sparse_dim=K)
    same(rf.gather(x, indices=own), (B, G, F), np.take_along_axis(values(x), values(own)[..., None], 1))
    same(rf.gather(x, indices=-1, axis=K), (B, F), values(x)[:, -1])
    last = rf.last_frame_position_of_dim(T)
    same(rf.gather(random([B, T]), indices=last, axis=T), (B,), values(random([B, T]))[range(3), LENGTHS - 1])
    table = random([K, F], 1)
    same(rf.gather(table, indices=own), (B, G, F), values(table)[values(own)])
    far = rf.convert_to_tensor(np.array([9, -3, 3], "int32"), dims=[B])
    clipped = rf.gather(random([B, T]), indices=far, axis=T, clip_to_valid=True)
    same(clipped, (B,), values(random([B, T]))[range(3), [4, 0, 3]])
    same(
        rf.gather(random([B, T]), indices=9, axis=T, clip_to_valid=True),
        (B,),
        values(random([B, T]))[range(3), LENGTHS - 1],
    )
    for call, text in (
        (lambda: rf.gather(x, indices=far, axis=G), "has no axis"),
        (lambda: rf.gather(x, indices=far), "`axis` must be"),
        (lambda: rf.gather(x, indices=5, axis=K), "position 5 is not on axis"),
        (lambda: rf.gather(table, indices=far, axis=K), "gather from"),
        (lambda: rf.gather(x, indices=random([B]), axis=K), "must be ints"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            call()


@pytest.mark.parametrize("mode", ["sum", "max", "min", "mean", "logsumexp", "logmeanexp"])
def test_scatter(mode):
    x, out = random([B, T, F]), rf.Dim(3, name="out")
    index = np.random.RandomState(3).randint(0, 2, (3, 5)).astype("int32")
    found = rf.scatter(x, indices=rf.convert_to_tensor(index, dims=[B, T], sparse_dim=out), indices_dim=T, mode=mode)
    assert found.dims == (B, out, F)
    functions = {
        "sum": lambda v: v.sum(0),
        "mean": lambda v: v.mean(0),
        "max": lambda v: v.max(0),
        "min": lambda v: v.min(0),
    }
    functions["logsumexp"] = lambda v: np.log(np.exp(v).sum(0))
    functions["logmeanexp"] = lambda v: np.log(np.exp(v).mean(0))
    nothing = {"sum": 0, "mean": 0, "max": -np.inf, "min": np.inf}.get(mode, -np.inf)
    for b, n in enumerate(LENGTHS):
        for place in range(3):
            part = values(x)[b, :n][index[b, :n] == place]
            want = functions[mode](part) if len(part) else nothing
            np.testing.assert_allclose(values(found)[b, place], np.broadcast_to(want, 4), rtol=1e-5)
    filled = rf.scatter(
        x, indices=rf.convert_to_tensor(index, dims=[B, T], sparse_dim=out), indices_dim=T, mode=mode, fill_value=-3.0
    )
    assert (values(filled)[:, 2] == -3).all()


def test_scatter_of_positions():
    x, out = random([B, T]), rf.Dim(3, name="out")
    index = rf.convert_to_tensor(np.array([[0, 0, 1, 1, 0]] * 3, "int32"), dims=[B, T], sparse_dim=out)
    found = rf.scatter_argmax(x, indices=index, indices_dim=T)
    want = [[max((i for i in range(n) if values(index)[b, i] == o), key=lambda i: values(x)[b, i], default=-1)
             for o in range(3)] for b, n in enumerate(LENGTHS)]  # fmt: skip
    assert values(found).tolist() == want and found.sparse_dim is T
    assert values(rf.scatter_count(indices=index, indices_dim=T)).tolist() == [[3, 2, 0], [2, 0, 0], [2, 2, 0]]
    with pytest.raises(ConfigError, match="must be below 3"):
        rf.scatter(x, indices=index + 2, indices_dim=T)


@settings(max_examples=25)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=3, max_size=3))
def test_masks_select_and_put_back(rows):
    mask = rf.convert_to_tensor(np.array(rows), dims=[B, T])
    x = random([B, T, F], feature_dim=F)
    packed, dim = rf.masked_select(x, mask=mask, dims=[T])
    for b, n in enumerate(LENGTHS):
        np.testing.assert_array_equal(values(packed)[b, : dim.dyn_size[b]], values(x)[b, :n][np.array(rows[b])[:n]])
    inside = np.array(rows) & MASK
    back = rf.masked_scatter(packed, mask=mask, dims=[T], in_dim=dim)
    same(back, (B, T, F), np.where(inside[..., None], values(x), 0))
    valid = rf.convert_to_tensor(inside, dims=[B, T])
    flat, dim = rf.masked_select(x, mask=valid, dims=[T, B])
    np.testing.assert_array_equal(values(flat), values(x).transpose(1, 0, 2)[inside.T])
    back = rf.masked_scatter(flat, x * 2.0, mask=valid, dims=[T, B], in_dim=dim)
    same(back, (T, B, F), np.where(inside[..., None], values(x), 2 * values(x)).transpose(1, 0, 2))


def test_packed_sequences():
    x = random([T, B, F], feature_dim=F)
    packed, dim = rf.pack_padded(x, dims=[B, T])
    np.testing.assert_array_equal(values(packed), values(x).transpose(1, 0, 2)[MASK])
    assert packed.feature_dim is F and int(dim.get_dim_value()) == 11
    same(rf.pad_packed(packed, in_dim=dim, dims=[B, T]), (B, T, F), values(x).transpose(1, 0, 2) * MASK[..., None])
    with pytest.raises(ConfigError, match="must be axes of the mask"):
        rf.masked_select(x, mask=T.get_mask(), dims=[F])


def test_sorting_and_searching():
    x = random([B, K])
    found, index, dim = rf.sort(x, axis=K, descending=True)
    same(found, (B, dim), -np.sort(-values(x), 1))
    same(rf.gather(x, indices=index), (B, dim), values(found))
    seq = rf.convert_to_tensor(np.array([1.0, 2, 2, 5, 7], "float32"), dims=[K])
    query = rf.convert_to_tensor(np.array([0.0, 2, 9], "float32"), dims=[B])
    assert values(rf.search_sorted(seq, query, axis=K)).tolist() == [0, 1, 5]
    assert values(rf.search_sorted(seq, query, axis=K, side="right")).tolist() == [0, 3, 5]
    probs = rf.convert_to_tensor(np.array([0.1, 0.4, 0.3, 0.15, 0.05], "float32"), dims=[K])
    assert values(rf.top_p_mask(probs, axis=K, p=0.6)).tolist() == [False, True, True, False, False]
    limits = rf.convert_to_tensor(np.array([0.1, 0.5, 0.99], "float32"), dims=[B])
    masks = rf.top_p_mask(rf.expand_dim(probs, B), axis=K, p=limits)
    assert masks.dims == (B, K) and values(masks).sum(1).tolist() == [1, 2, 5]
    assert values(rf.top_k_mask(probs, axis=K, k=1)).tolist() == [False, True, False, False, False]


def test_classes_as_vectors():
    labels = rf.convert_to_tensor(np.array([1, 3, 0], "int32"), dims=[B], sparse_dim=F)
    same(rf.one_hot(labels), (B, F), np.eye(4)[[1, 3, 0]])
    assert rf.sparse_to_dense(2, axis=F, label_value=1, other_value=0).dtype == "int32"
    with pytest.raises(ConfigError, match="`axis` must be given"):
        rf.one_hot(rf.zeros([B], dtype="int32"))


def test_label_sequences():
    classes = rf.Dim(3, name="classes")
    path = np.array([[0, 1, 1, 2, 1], [2, 1, 0, 0, 0], [1, 2, 1, 1, 2]])
    logits = rf.one_hot(rf.convert_to_tensor(path, dims=[B, T], sparse_dim=classes))
    logits.feature_dim = classes
    labels, dim = rf.ctc_greedy_decode(logits, in_spatial_dim=T, blank_index=2)
    assert dim.dyn_size.tolist() == [3, 1, 2] and values(labels)[0].tolist() == [0, 1, 1] and labels.dtype == "int32"
    assert values(rf.edit_distance(labels, dim, labels, dim)).tolist() == [0, 0, 0]
    other = rf.convert_to_tensor(np.zeros((3, 1), "int32"), dims=[B, sized([1, 1, 1], B, "other")])
    assert values(rf.edit_distance(labels, dim, other, other.dims[1])).tolist() == [2, 1, 2]
    plain = rf.convert_to_tensor(path.astype("int32"), dims=[B, T])
    durations, axis = rf.ctc_durations_from_path(path=plain, path_spatial_dim=T, blank_index=2)
    assert axis.dyn_size.tolist() == [7, 3, 5] and values(durations)[0].tolist() == [0, 1, 0, 2, 1, 1, 0]
