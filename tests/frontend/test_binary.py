"""Operations on two tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import random, same, sized, values

B, F, G, K = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="G"), rf.Dim(5, name="K")
LENGTHS = np.array([5, 2, 4])
T = sized(LENGTHS, B)
MASK = np.arange(5) < LENGTHS[:, None]


def test_axes_of_two_operands():
    x, y, z = random([B, F]), random([F, B], 1), random([G, F], 2)
    same(x + y, (B, F), values(x) + values(y).T)
    same(random([F], 3) - x, (B, F), values(random([F], 3)) - values(x))
    same(x * z, (B, F, G), values(x)[:, :, None] * values(z).T[None])
    same(rf.combine(x, "max", z, dim_order=[G, F]), (G, F, B), np.maximum(values(z)[..., None], values(x).T[None]))
    assert rf.compare(x, "<", z).dtype == "bool" and rf.maximum(1, 3, 2) == 3 and rf.minimum(4, 2) == 2


@settings(max_examples=30)
@given(st.permutations(range(3)), st.permutations(range(3)), st.integers(0, 3))
def test_operators_do_what_numpy_does_with_the_axes_in_any_order(first, second, count):
    dims = [B, F, G]
    a, b = random([dims[i] for i in first]), random([dims[i] for i in second[:count]], 1)
    want = values(a) + np.asarray(b.copy_compatible_to_dims_raw(a.dims))
    same(a + b, a.dims, want)
    same(b + a, b.dims if count == 3 else a.dims, (b + a).copy_transpose(b.dims if count == 3 else a.dims).raw_tensor)
    np.testing.assert_allclose(values((b + a).copy_transpose(a.dims)), want, rtol=1e-5)


def test_roles_of_results():
    x, plain = random([B, F], feature_dim=F), random([B, F], 1)
    classes = rf.convert_to_tensor(np.array([0, 1, 3], "int32"), dims=[B], sparse_dim=F)
    assert (x + plain).feature_dim is F and (plain + x).feature_dim is None and (2.0 * x).feature_dim is F
    assert (classes + 1).sparse_dim is F and (classes == 1).sparse_dim is None and (-classes).sparse_dim is F
    assert (classes / 2).dtype == "float32" and (classes // 2).dtype == "int32" and (classes * 0.5).dtype == "float32"


def test_numbers_and_rounding():
    i = rf.convert_to_tensor(np.array([-3, -1, 2], "int32"), dims=[B])
    same(i // 2, (B,), [-2, -1, 1])
    same(i % 2, (B,), [1, 1, 0])
    same(rf.ceil_divide(i, 2), (B,), [-1, 0, 1])
    same(np.float32(2) * i, (B,), [-6, -2, 4])
    for array in (np.array([2, -1]), torch.tensor([2, -1])):
        compared = i == array
        assert compared.dims[0] is B and compared.dtype == "bool" and values(compared).tolist() == [
            [False, False], [False, True], [True, False],
        ]  # fmt: skip
        assert (values(i != array) != values(compared)).all()
    with pytest.raises(ConfigError, match=r"array of shape \(3,\) has no axes"):
        i + np.ones(3)
    with pytest.raises(ConfigError, match='`kind` must be one of .*did you mean "maximum"'):
        rf.combine(i, "maxmum", i)


def test_where_and_limits():
    x, c = random([B, F], feature_dim=F), rf.convert_to_tensor(np.array([True, False, True]), dims=[B])
    same(rf.where(c, x, 0.5), (B, F), np.where([[True], [False], [True]], values(x), 0.5))
    i = rf.convert_to_tensor(np.array([4, 5, 6], "int32"), dims=[B], sparse_dim=F)
    found = rf.where(c, i, 0.7)
    same(found, (B,), [4, 0, 6])
    assert found.dtype == "int32" and found.sparse_dim is F and rf.where(c, 1, 0).dtype == "int32"
    with pytest.raises(ConfigError, match="no operand has all axes of .*'F'.*'B'"):
        rf.where(c, random([F]), 0.0)
    same(rf.clip_by_value(x, random([F], 1) * 0, 0.25), (B, F), values(x).clip(0, 0.25))
    assert rf.clip_by_value(x) is x
    half = rf.convert_to_tensor(np.array([0.5, 4.5, 0.5], "float32"), dims=[B])
    same(rf.clip_by_value(rf.set_sparse_dim(i, None), half, 5.5), (B,), [4, 5, 5.5])
    same(rf.lerp(x, 0 * x, 0.25), (B, F), values(x) * 0.75)
