"""Tensors: construction, attributes, copies, templates, older descriptions, dicts."""

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from returnn_lite.frontend.errors import OutShapeMismatch
from returnn_lite.frontend.marked_dim import ImplicitDynSizeDim, ImplicitSparseDim, OptionalDim
from returnn_lite.frontend.random_data import tensor_dict_fill_random_numpy_
from returnn_lite.frontend.tensor_dict import tensor_dict_numpy_to_torch_
from tests.frontend.helpers import random, same, sized, values

B, F, K = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="K")
T = sized([5, 2, 4], B)

WRONG = {
    "no dtype": (lambda: rf.Tensor("x", [B]), "must have a `dtype`"),
    "unknown dtype": (lambda: rf.Tensor("x", [B], "flaot32"), 'did you mean "float32"'),
    "no axes": (lambda: rf.Tensor("x"), "must have `dims`"),
    "number as axis": (lambda: rf.Tensor("x", [3], "int32"), "`dims` of tensor 'x' must be axes, but 3"),
    "unknown option": (lambda: rf.Tensor("x", [B], "int32", sprse_dim=F), 'did you mean "sparse_dim"'),
    "other sizes": (lambda: random([B, T]) + rf.Tensor("y", [B, T], raw_tensor=torch.ones(3, 7)), r"and Tensor\{'y'"),
    "one axis": (lambda: rf.Tensor("x", B, "int32"), "must be a list of axes"),
    "other size": (lambda: rf.convert_to_tensor(np.zeros(3), dims=[F]), r"axis 'F'\(4\) .* size 3"),
    "other rank": (lambda: rf.convert_to_tensor(np.zeros((3, 4)), dims=[B]), "must have as many"),
    "other type": (lambda: rf.Tensor("x", [B], "int32", raw_tensor=torch.zeros(3)), "must be int32, but is float32"),
    "feature of classes": (lambda: rf.zeros([B], dtype="int32", sparse_dim=F, feature_dim=B), "cannot also have"),
    "not its axis": (lambda: random([B]).get_axis_from_description(F), r"has no axis Dim\{'F'\(4\)\}"),
    "transposed in part": (lambda: random([B, F]).copy_transpose([F]), "must be all of its axes"),
    "not to be added": (lambda: random([B]).copy_compatible_to_dims([B, F], add_dims=False), "lacks"),
    "axis lost": (lambda: random([B, F]).copy_compatible_to_dims([B]), r"must include \['F'\(4\)\]"),
    "truth value": (lambda: bool(random([B])), "has no truth value"),
    "index": (lambda: random([B])[0], "has no index"),
    "iteration": (lambda: list(random([B])), "cannot be iterated"),
}  # fmt: skip


@pytest.mark.parametrize("call, text", WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_in_one_line(call, text):
    with pytest.raises(ConfigError, match=text) as caught:
        call()
    assert isinstance(caught.value, ValueError | AssertionError | TypeError)
    assert str(caught.value).startswith(__file__) and "\n" not in str(caught.value)


def test_attributes():
    x = random([B, T, F], feature_dim=F)
    assert x.dims == (B, T, F) and x.dims_set == {F, T, B} and x.batch_ndim == 3 and x.batch_shape == (3, None, 4)
    assert x.feature_dim is F and x.feature_dim_axis == 2 and x.dim == 4 and x.dtype == "float32" and x.device == "cpu"
    assert x.remaining_dims(T) == [B, F] and x.remaining_dims([F, B]) == [T] and x.get_dyn_size_tags() == [T]
    assert repr(x) == "Tensor{'const', ['B'(3),'time'['B'(3)],F|'F'(4)]}" and hash(x) == hash(x)
    assert (x == None) is False and (x != "text") is True  # noqa: E711
    assert [x.get_axis_from_description(d) for d in (F, B, T, "F", "dim:4")] == [2, 0, 1, 2, 2]


def test_a_tensor_with_an_axis_twice():
    first = rf.dim_match_priority_when_needed(F, F)
    weight = random([first, F])
    assert weight.get_axis_from_description(F) == 0 and first == F and first.match_priority == 1
    same(rf.matmul(random([B, F], 1), weight, reduce=F), (B, F), values(random([B, F], 1)) @ values(weight))
    with pytest.raises(ConfigError, match="twice"):
        random([F, F]).get_axis_from_description(F)


def test_copies():
    x = random([B, T, F], feature_dim=F)
    y = x.copy_transpose([F, B, T])
    same(y, (F, B, T), values(x).transpose(2, 0, 1))
    assert y.feature_dim_axis == 0 and x.copy().raw_tensor is x.raw_tensor
    same(x.copy_move_axis(0, 2), (T, F, B), values(x).transpose(1, 2, 0))
    same(x.copy_swap_axes(0, 2), (F, T, B), values(x).T)
    z = x.copy_compatible_to_dims([K, F, B, T])
    assert z.raw_tensor.shape == (1, 4, 3, 5) and K not in z.dims and z.dims[1:] == (F, B, T)
    assert x.copy_compatible_to_dims_raw([B, K, T, F], unbroadcast=True).shape == (3, 2, 5, 4)
    scalar = rf.convert_to_tensor(2.0)
    assert scalar.copy_compatible_to_dims_raw([B, F]).shape == (1, 1)


def test_masked_copies():
    x = random([B, T])
    mask = np.arange(5) < np.array([[5], [2], [4]])
    same(x.copy_masked(7.0), (B, T), np.where(mask, values(x), 7))
    same(random([T, F]).copy_masked(0), (T, F), values(random([T, F])))  # the axis of the sizes is not there


def test_templates():
    x = random([B, T, F], feature_dim=F)
    replaced = x.copy_template_replace_dim_tag(axis=-1, new_dim_tag=K, name="y")
    assert replaced.dims == (B, T, K) and replaced.feature_dim is K and replaced.raw_tensor is None
    assert x.copy_template_excluding_axis(1).feature_dim is F and x.copy_template_excluding_axis(2).feature_dim is None
    assert x.copy_template("z", dtype="int32").dtype == "int32" and x.copy_template().device is None


def test_shapes_that_code_declares():
    x, classes = random([T, F]), rf.zeros([B], dtype="int32", sparse_dim=F)
    x.verify_out_shape({T, F, ImplicitDynSizeDim(B), OptionalDim(K)})
    classes.verify_out_shape({B, ImplicitSparseDim(F)})
    x.verify_out_shape({T, F}, allow_missing_implicit_dims=True)
    for wrong in ({T}, {T, F}, {T, F, B, ImplicitDynSizeDim(B)}, {T, F, ImplicitDynSizeDim(B), ImplicitSparseDim(F)}):
        with pytest.raises(OutShapeMismatch, match="must have the axes"):
            x.verify_out_shape(wrong)


def test_older_descriptions():
    feat, labels = rf.Tensor("data", shape=(None, 40)), rf.Tensor("classes", dim=10, sparse=True)
    assert feat.batch_shape == (None, None, 40) and feat.have_batch_axis() and feat.shape == (None, 40)
    assert (feat.time_dim_axis, feat.feature_dim_axis, feat.dtype, feat.version) == (1, 2, "float32", 1)
    assert labels.sparse_dim.dimension == 10 and labels.dtype == "int32" and labels.feature_dim is None
    assert labels.get_time_dim_tag() is labels.dims[1]
    tags = rf.Tensor("x", dim_tags=[rf.batch_dim, T, F])
    assert tags.get_time_dim_tag() is T and tags.feature_dim is F and tags.get_sequence_lengths().tolist() == [5, 2, 4]
    assert rf.Tensor("x", shape=(None, 5)).out_type == {"dtype": "float32", "sparse": False, "shape": (None, 5)}


def test_dicts_of_tensors():
    x = random([B, T])
    found = rf.TensorDict({"x": x, "y": rf.zeros([B], dtype="int32")})
    assert found["x"] is not x and found["x"].raw_tensor is x.raw_tensor and "z" not in found
    raw = found.as_raw_tensor_dict()
    assert sorted(raw) == ["x", "x:size1", "y"] and raw["x:size1"].tolist() == [5, 2, 4]
    assert [d.name for d in found.all_dims()] == ["B", "time"]
    with pytest.raises(ConfigError, match="unknown tensor 'xx'; did you mean \"x\""):
        found["xx"]
    time, batch = rf.Dim(None, name="t"), rf.Dim(None, name="b", kind=rf.Dim.Types.Batch)
    time.dyn_size_ext = rf.Tensor("t", [batch], "int32", raw_tensor=torch.ones(1, dtype=torch.int32))
    template = rf.TensorDict()
    template.update({"x": {"dims": [batch, time], "dtype": "float32"}}, auto_convert=True)
    template.assign_from_raw_tensor_dict_(
        {"x": torch.ones(2, 3), "x:size0": torch.tensor(2), "x:size1": torch.tensor([3, 1])}
    )
    assert float(values(rf.reduce_sum(template["x"], axis=[batch, time]))) == 4
    template.reset_content()
    assert template["x"].raw_tensor is None and time.dyn_size_ext.raw_tensor is None


def test_random_content():
    time, labels = rf.Dim(None, name="time"), rf.Dim(9, name="labels")
    found = rf.TensorDict()
    options = {"dims": [rf.batch_dim, time], "sparse_dim": labels, "dtype": "int32"}
    found.update({"classes": options, "x": {"dims": [rf.batch_dim, time, F], "dtype": "float32"}}, auto_convert=True)
    tensor_dict_fill_random_numpy_(found, dyn_dim_max_sizes={time: 6}, dyn_dim_min_sizes={time: 4})
    tensor_dict_numpy_to_torch_(found)
    classes, sizes = found["classes"].raw_tensor, time.dyn_size
    assert sizes.max() == 6 and sizes.min() >= 4 and classes.shape == (len(sizes), 6) and 0 <= classes.min()
    assert classes.max() < 9 and found["x"].raw_tensor.shape == (len(sizes), 6, 4)
    rf.batch_dim.reset_eager()


def test_texts_and_numpy():
    words = rf.Tensor("words", [B], "string", raw_tensor=np.array(["a", "b b", ""]))
    assert words.dtype == "string" and words.copy_transpose([B]).raw_tensor.tolist() == ["a", "b b", ""]
    row = rf.Tensor("row", [B, K], "float32", raw_tensor=np.ones((3, 2), "float32"))
    assert row.copy_transpose([K, B]).raw_tensor.shape == (2, 3)
