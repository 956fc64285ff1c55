"""Axes: sizes, equality, masks, new batches."""

import copy
import pickle

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim as CoreDim
from returnn_lite.tensor.foreign import with_core_dims
from tests.frontend.helpers import same, sized, values

B, F = rf.Dim(3, name="B"), rf.Dim(4, name="F")
FLOAT8 = torch.zeros(2).to(torch.float8_e4m3fn)


def test_kinds_of_sizes():
    time, late = sized([5, 2, 4], B), rf.Dim(None, name="late")
    scalar = rf.Dim(rf.convert_to_tensor(6, dims=[], dtype="int32"), name="N")
    assert [d.dimension for d in (F, time, late, scalar)] == [4, None, None, None]
    assert [d.need_masking() for d in (F, time, late, scalar, rf.batch_dim)] == [False, True, True, False, False]
    assert [d.padded_size() for d in (F, time, scalar)] == [4, 5, 6]
    assert [d.is_dim_known() for d in (F, time, late, scalar, rf.batch_dim)] == [True, True, False, True, True]
    assert repr(time) == "Dim{'time'['B'(3)]}" and repr(F) == "Dim{'F'(4)}" and repr(rf.batch_dim) == "Dim{B}"
    late.dyn_size_ext = time.dyn_size_ext
    assert late.dyn_size.tolist() == [5, 2, 4] and late.dyn_size_ext is not time.dyn_size_ext


def test_sizes_of_torch_models_are_over_the_batch():
    time = rf.Dim(torch.tensor([3, 2]), name="time")
    assert time.dyn_size_ext.dims == (rf.batch_dim,) and time.padded_size() == 3


@pytest.mark.parametrize("wrong", [1.5, "x", np.ones(2, "float32"), np.ones((2, 2), "int32"), FLOAT8, True])
def test_other_sizes_are_refused(wrong):
    with pytest.raises(TypeError, match="size|dimension|axes"):
        rf.Dim(wrong, name="wrong")


def test_unknown_options_are_told():
    with pytest.raises(ConfigError, match="no option 'nmae'; did you mean \"name\""):
        rf.Dim(3, nmae="x")


def test_equal_are_copies_and_batch_axes_alone():
    other, own_batch = rf.Dim(4, name="F"), rf.Dim(None, name="mine", kind=rf.Dim.Types.Batch)
    view = F.copy(description="view")
    assert F == view and hash(F) == hash(view) and view is not F and view.name == "view" and F.get_same_base() is F
    assert F != other and F != 4 and not (F == None) and own_batch == rf.batch_dim  # noqa: E711
    assert {F: 1}[view] == 1 and len({F, view, other}) == 2 and copy.deepcopy(F) is F
    with pytest.raises(AssertionError, match="description"):
        F.copy(same_as_self=False)


def test_declared_the_same():
    time, late, derived = sized([5, 2, 4], B), rf.Dim(None, name="late"), rf.Dim(None, name="derived")
    late.declare_same_as(time)
    assert late == time and hash(late) == hash(time) and late.padded_size() == 5
    derived.declare_same_as(time + 1)
    assert derived == time + 1 and derived.dyn_size.tolist() == [6, 3, 5] and derived.derived_from_op.kind == "add"
    with pytest.raises(AssertionError, match="other sizes"):
        F.declare_same_as(rf.Dim(5))


def test_masks():
    time = sized([3, 1, 2], B)
    expected = np.arange(3) < np.array([[3], [1], [2]])
    same(time.get_mask(), (B, time), expected)
    same(time.get_mask(dim_order=[F, time, B]), (time, B), expected.T)
    assert time.get_mask() is time.get_mask()


def test_sizes_over_padded_axes_count_as_whole_there():
    inner = sized([2, 1, 0], B, "inner")
    outer = sized([[1, 2], [1, 0], [0, 0]], [B, inner], "outer")
    assert values(outer.get_mask()).sum(-1).tolist() == [[1, 2], [1, 2], [2, 2]]


def test_new_sizes_reach_what_was_computed():
    time = sized([5, 2, 4], B)
    half = time.ceildiv_right(2)
    assert half.padded_size() == 3 and values(half.get_mask()).sum() == 3 + 1 + 2
    time.reset_eager()
    assert half.dyn_size_ext is None
    with pytest.raises(ConfigError, match="sizes of axis .* are not known"):
        half.get_dim_value()
    time.dyn_size_ext = rf.convert_to_tensor(np.array([1, 3, 2], "int32"), dims=[B])
    assert time.ceildiv_right(2) is half and half.padded_size() == 2 and values(half.get_mask()).sum() == 1 + 2 + 1
    time.dyn_size_ext.raw_tensor = torch.tensor([7, 7, 7], dtype=torch.int32)
    assert half.padded_size() == 4
    time.transform_tensors(lambda sizes: sizes.raw_tensor.mul_(2))
    assert half.padded_size() == 7


def test_other_processes_get_axes_of_their_own():
    time = sized([5, 2, 4], B)
    again, longer, batch, view = pickle.loads(pickle.dumps((time, time + 1, rf.batch_dim, time.copy(description="v"))))
    assert again != time and again == view and again + 1 == longer and longer.dyn_size.tolist() == [6, 3, 5]
    assert batch == rf.batch_dim and hash(batch) == hash(rf.batch_dim)


def test_numbers_of_entries():
    time, other = sized([5, 2, 4], B), sized([1, 2, 3], B, "other")
    assert rf.num_elements_of_shape([B, F]) == 12
    assert int(values(rf.num_elements_of_shape([B, time, F]))) == 44
    same(rf.num_elements_of_shape([time, F]), (B,), [20, 8, 16])
    assert int(values(rf.num_elements_of_shape([B, time, other]))) == 5 + 4 + 12
    assert float(values(rf.masked_fraction_of_shape([B, time]))) == pytest.approx(11 / 15)


def test_the_axis_that_layers_see():
    time = rf.Dim(None, name="time", kind=rf.Dim.Types.Spatial)
    core = time.core
    assert isinstance(core, CoreDim) and core is time.core and core.dynamic and core.kind == "spatial"
    assert (2 * time + 1).core == 2 * core + 1 and time.ceildiv_right(3).core == core.ceildiv(3)
    assert time == core and core == time and rf.Dim.of(core) is time
    options = {"axes": [time, "F"], "n": (F, 3), "x": 5}
    found = with_core_dims(options)
    assert found["axes"][0] is core and found["n"] == (F.core, 3) and with_core_dims({"x": [1]}) == {"x": [1]}


def test_vocabularies():
    class Labels:
        num_labels = 7

    found = rf.Dim(None, name="labels", vocab=Labels())
    assert found.dimension == 7 and isinstance(found.vocab, Labels)
    assert isinstance(rf.convert_to_tensor(1, dims=[], sparse_dim=found).vocab, Labels)
