"""Constants, random numbers, gradients, spectra."""

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from tests.frontend.helpers import random, same, sized, values

B, F, G, K = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="G"), rf.Dim(5, name="K")
LENGTHS = np.array([5, 2, 4])
T = sized(LENGTHS, B)
MASK = np.arange(5) < LENGTHS[:, None]


def test_constants_and_ranges():
    assert rf.full(dims=[B], fill_value=2).dtype == "int32" and rf.zeros([B]).dtype == "float32"
    assert rf.full(dims=[B], fill_value=np.int64(2)).dtype == "int64"
    assert (
        rf.convert_to_tensor(np.float64(1.5)).dtype == "float32" and rf.convert_to_tensor([1.5, 2]).dtype == "float64"
    )
    with rf.set_default_float_dtype_ctx("float64"):
        assert rf.ones([B]).dtype == "float64" and rf.convert_to_tensor(1.5).dtype == "float64"
    positions = rf.range_over_dim(T)
    assert values(positions).tolist() == [0, 1, 2, 3, 4] and positions.sparse_dim is T and positions.dtype == "int32"
    same(rf.range_over_merged_dims([B, G]), (B, G), np.arange(6).reshape(3, 2))
    same(rf.linspace_over_dim(F, 1.0, 2.0), (F,), [1, 1.25, 1.5, 1.75])
    same(rf.sequence_mask([T, B]), (T, B), MASK.T)
    raw = torch.zeros(3)
    assert rf.convert_to_tensor(raw, dims=[B]).raw_tensor is raw
    with pytest.raises(ConfigError, match="must be a number or scalar"):
        rf.full(dims=[B], fill_value=np.ones(2))


def test_random_numbers():
    many = rf.Dim(2000, name="many")
    rf.set_random_seed(5)
    first = rf.random_normal([many], mean=1.0, stddev=2.0)
    rf.set_random_seed(5)
    assert torch.equal(first.raw_tensor, rf.random_normal([many], mean=1.0, stddev=2.0).raw_tensor)
    assert abs(values(first).mean() - 1) < 0.2 and abs(values(first).std() - 2) < 0.2
    assert set(values(rf.random_uniform([many], dtype="int32", minval=2, maxval=5)).tolist()) == {2, 3, 4}
    assert abs(values(rf.random_truncated_normal([many], stddev=0.5))).max() <= 1
    state = torch.get_rng_state()
    a, b = (rf.random([many], distribution="uniform", static=True, seed=3) for _ in range(2))
    assert torch.equal(a.raw_tensor, b.raw_tensor) and torch.equal(state, torch.get_rng_state())
    probs = rf.convert_to_tensor(np.eye(3, 4, dtype="float32"), dims=[B, F])
    drawn = rf.random_choice_with_replacement([G, B], probs=probs, axis=F)
    assert values(drawn).tolist() == [[0, 1, 2], [0, 1, 2]] and drawn.sparse_dim is F
    with pytest.raises(ConfigError, match="static=True"):
        rf.random_uniform([B], seed=1)


def test_gradients():
    x = random([B, F])
    rf.set_requires_gradient(x)
    grad = values(rf.gradient(rf.reduce_sum(rf.scaled_gradient(x, -2.0) * 3.0, axis=x.dims), x))
    assert (grad == -6).all() and not rf.scaled_gradient(x, 0.0).raw_tensor.requires_grad
    y = rf.scaled_gradient_ext(x, scale=1.0, shift=-0.5, scale_shift_by_sum_over_axis=F)
    grad = values(rf.gradient(rf.reduce_sum(y, axis=y.dims), x))
    assert (grad == 1 - 0.5 * 4).all()
    scale = rf.convert_to_tensor(np.array([1, 2, 3], "float32"), dims=[B])
    rf.set_requires_gradient(scale)
    y = rf.scaled_gradient_ext(x, scale=scale, shift=rf.convert_to_tensor(0.5)) + 0.0 * rf.reduce_sum(scale, axis=B)
    grad = values(rf.gradient(rf.reduce_sum(y, axis=y.dims), x))
    assert (grad == np.array([[1.5], [2.5], [3.5]])).all()
    assert not values(rf.gradient(rf.reduce_sum(y, axis=y.dims), scale)).any()
    with rf.stop_gradient_scope():
        assert not rf.exp(x).raw_tensor.requires_grad


def test_spectra():
    time = sized([50, 32, 20], B)
    x = random([B, time])
    found, out, bins = rf.stft(x, in_spatial_dim=time, frame_step=8, frame_length=16)
    assert found.dims == (B, bins, out) and out.dyn_size.tolist() == [5, 3, 1] and found.dtype == "complex64"
    window = np.hanning(17)[:16]
    want = np.fft.rfft(values(x)[1, 8:24] * window)
    np.testing.assert_allclose(found.raw_tensor.numpy()[1, :, 1], want, atol=1e-4)
