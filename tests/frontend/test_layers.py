"""Linear, embedding, convolution, pooling, norms, LSTMs: against torch, numpy, and computations by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from returnn_lite import frontend as rf
from returnn_lite.frontend.errors import WrongUse
from tests.frontend.helpers import random, same, sized, values

B, F, G = rf.Dim(3, name="batch"), rf.Dim(6, name="in"), rf.Dim(4, name="out")
LENGTHS = [7, 4, 1]


def data(lengths=LENGTHS, features=F, seed=0):
    """(tensor [B, T, F], T), random also in the padding."""
    time = sized(lengths, B)
    return random([B, time, features], seed, feature_dim=features), time


def other_padding(x, time):
    """The same frames with other padding."""
    mask = values(time.get_mask(dim_order=x.dims))[..., None]
    noise = np.random.RandomState(9).normal(size=values(x).shape).astype("float32")
    return x._like(torch.as_tensor(np.where(mask, values(x), noise)))


def valid(y, time):
    """The frames that are no padding, (frames, features)."""
    raw = y.copy_transpose([B, time, y.feature_dim]).raw_tensor.detach()
    return raw[time.get_mask(dim_order=[B, time]).raw_tensor].numpy()


def test_linear():
    x, time = data()
    layer = rf.Linear(F, G)
    assert {name: tuple(p.raw_tensor.shape) for name, p in layer.named_parameters()} == {"weight": (6, 4), "bias": (4,)}
    layer.bias.initial = random([G], 5)
    want = values(x) @ values(layer.weight) + values(layer.bias)
    same(layer(x), [B, time, G], want)
    moved = layer(x.copy_transpose([F, time, B]))
    same(moved, [time, B, G], want.transpose(1, 0, 2))
    assert moved.feature_dim is G
    square = rf.Linear(F, F, with_bias=False)
    same(square(x), [B, time, F], values(x) @ values(square.weight))
    with pytest.raises(WrongUse, match="no axis"):
        layer(random([B, G]))
    with pytest.raises(WrongUse, match="needs a Tensor"):
        layer(torch.zeros(2, 6))


def test_linear_with_the_matrix_of_an_embedding():
    embedding, logits = rf.Embedding(G, F), rf.Linear(F, G, with_bias=False)
    logits.weight = embedding.weight
    x, time = data()
    same(logits(x), [B, time, G], values(x) @ values(embedding.weight).T)
    labels = rf.convert_to_tensor(np.array([1, 3, 0]), dims=[B], sparse_dim=G)
    for dtype in ("int64", "int32", "int16", "uint8"):
        same(embedding(rf.cast(labels, dtype)), [B, F], values(embedding.weight)[[1, 3, 0]])
    with pytest.raises(WrongUse, match="classes"):
        embedding(x)


@pytest.mark.parametrize("options, length", [
    ({"filter_size": 3, "padding": "same"}, lambda n: n),
    ({"filter_size": 4, "padding": "same"}, lambda n: n),
    ({"filter_size": 3, "padding": "valid"}, lambda n: max(n - 2, 0)),
    ({"filter_size": 3, "padding": "same", "strides": 2}, lambda n: -(-n // 2)),
    ({"filter_size": 3, "padding": "valid", "strides": 2, "dilation_rate": 2}, lambda n: -(-max(n - 4, 0) // 2)),
    ({"filter_size": 3, "padding": 2}, lambda n: n + 2),
])  # fmt: skip
def test_convolution_lengths_and_padding(options, length, version):
    """From version 24 on a sequence gives the same in every batch."""
    version(24)
    layer = rf.Conv1d(F, G, **options)
    x, time = data()
    y, out = layer(x, in_spatial_dim=time)
    assert y.dims == (B, G, out) and y.feature_dim is G
    assert out.dyn_size.tolist() == [length(n) for n in LENGTHS]
    z, _ = layer(other_padding(x, time), in_spatial_dim=time)
    np.testing.assert_allclose(valid(z, out), valid(y, out), rtol=1e-5, atol=1e-6)
    alone_dim = rf.Dim(LENGTHS[1], name="alone")
    alone = rf.convert_to_tensor(values(x)[1, : LENGTHS[1]], dims=[alone_dim, F])
    w, _ = layer(alone, in_spatial_dim=alone_dim)
    size = length(LENGTHS[1])
    np.testing.assert_allclose(values(w)[:, :size], values(y)[1, :, :size], rtol=1e-5, atol=1e-6)


def test_padding_leaks_up_to_version_22(version):
    layer = rf.Conv1d(F, G, 3, padding="same")
    x, time = data()
    for number, leaks in ((22, True), (23, False)):
        version(number)
        y, z = (layer(v, in_spatial_dim=time)[0] for v in (x, other_padding(x, time)))
        assert np.allclose(valid(y, time), valid(z, time)) != leaks


def test_convolution_is_that_of_torch(version):
    version(16)
    x, time = data()
    layer = rf.Conv1d(F, F, 3, padding="same", groups=3)
    assert tuple(layer.filter.raw_tensor.shape) == (6, 2, 3)
    want = functional.conv1d(
        x.raw_tensor.transpose(1, 2), layer.filter.raw_tensor, layer.bias.raw_tensor, padding=1, groups=3
    )
    same(layer(x, in_spatial_dim=time)[0], [B, F, time], want.detach().numpy())
    two = rf.Conv2d(rf.Dim(1, name="one"), G, (3, 2), padding="valid", strides=(2, 1))
    image = random([B, two.in_dim, F, H := rf.Dim(5, name="h")])
    y, dims = two(image, in_spatial_dims=[F, H])
    want = functional.conv2d(image.raw_tensor, two.filter.raw_tensor, two.bias.raw_tensor, (2, 1)).detach().numpy()
    same(y, [B, G, *dims], want)
    assert [dim.dimension for dim in dims] == [2, 4]
    assert rf.make_conv_out_spatial_dims([F, H], filter_size=(3, 2), padding="valid", strides=(2, 1)) == dims
    with pytest.raises(WrongUse, match="no axis"):
        layer(x, in_spatial_dim=rf.Dim(7, name="other"))
    with pytest.raises(WrongUse, match="did you mean"):
        rf.Conv1d(F, G, 3, padding="sames")


def test_transposed_convolution():
    x, time = data()
    layer = rf.TransposedConv1d(F, G, 4, padding="valid", strides=2)
    y, out = layer(x, in_spatial_dim=time)
    assert out.dyn_size.tolist() == [2 * n + 2 for n in LENGTHS]
    want = functional.conv_transpose1d(
        x.copy_masked(0).raw_tensor.transpose(1, 2), layer.filter.raw_tensor, layer.bias.raw_tensor, 2
    )
    same(y, [B, G, out], want.detach().numpy())


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("size, stride, padding", [(3, 1, "same"), (2, 2, "valid"), (3, 2, "same"), (4, 4, "same")])
def test_pooling_without_a_mask(mode, size, stride, padding, version):
    """What is added for "same" padding never counts."""
    version(16)
    x, time = data()
    y, out = rf.pool1d(x, mode=mode, pool_size=size, strides=stride, padding=padding, in_spatial_dim=time)
    n, raw = LENGTHS[0], values(x)
    frames = -(-n // stride) if padding == "same" else -(-(n - size + 1) // stride)
    left = max((frames - 1) * stride + size - n, 0) // 2 if padding == "same" else 0
    windows = [raw[:, max(i * stride - left, 0) : i * stride - left + size] for i in range(frames)]
    want = np.stack([w.max(1) if mode == "max" else w.mean(1) for w in windows], 1)
    same(y, [B, F, out], want.transpose(0, 2, 1))
    assert y.feature_dim is F


def test_norms():
    x, time = data()
    mean, var = values(x).mean(-1, keepdims=True), values(x).var(-1, keepdims=True)
    same(rf.LayerNorm(F)(x), [B, time, F], (values(x) - mean) / np.sqrt(var + 1e-6))
    same(rf.RMSNorm(F, eps=0.1)(x), [B, time, F], values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True) + 0.1))
    both = rf.LayerNorm([time_dim := rf.Dim(7, name="t"), F])
    static = random([time_dim, B, F])
    raw = values(static)
    want = (raw - raw.mean((0, 2), keepdims=True)) / np.sqrt(raw.var((0, 2), keepdims=True) + 1e-6)
    same(both(static), [time_dim, B, F], want, atol=1e-5)
    groups = values(x).reshape(3, 7, 2, 3)
    want = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
    same(rf.GroupNorm(F, num_groups=2)(x), [B, time, F], want.reshape(3, 7, 6), atol=1e-5)
    spatial = rf.GroupNormSpatial(F, num_groups=2)(x, spatial_dim=time)
    one = groups[1, :4]
    want = (one - one.mean((0, 2), keepdims=True)) / np.sqrt(one.var((0, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(values(spatial)[1, :4], want.reshape(4, 6), rtol=1e-4, atol=1e-5)
    with pytest.raises(WrongUse, match="multiple"):
        rf.GroupNorm(F, num_groups=4)


@pytest.mark.parametrize("use_mask", [True, False])
def test_batch_norm(use_mask):
    x, time = data()
    norm = rf.BatchNorm(F, use_mask=use_mask)
    assert [name for name, _ in norm.named_parameters()] == ["running_mean", "running_variance", "gamma", "beta"]
    rows = valid(x, time) if use_mask else values(x).reshape(-1, 6)
    mean, var = rows.mean(0), rows.var(0)
    want = (values(x) - mean) / np.sqrt(var + 1e-3)
    same(norm(x), [B, time, F], want, atol=1e-5)
    n = len(rows)
    np.testing.assert_allclose(values(norm.running_mean), 0.1 * mean, rtol=1e-4, atol=1e-6)
    unbiased = var if use_mask else var * n / (n - 1)
    np.testing.assert_allclose(values(norm.running_variance), 0.9 + 0.1 * unbiased, rtol=1e-4)
    with rf.get_run_ctx().train_flag_ctx(False):
        y = norm(x.copy_transpose([time, F, B]))
    want = (values(x) - values(norm.running_mean)) / np.sqrt(values(norm.running_variance) + 1e-3)
    same(y, [time, F, B], want.transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("use_mask", [True, False])
@pytest.mark.parametrize("own, given, found", [
    ("bfloat16", "bfloat16", "bfloat16"), ("float32", "bfloat16", "float32"), ("float64", "float32", "float64"),
])  # fmt: skip
def test_batch_norm_of_other_types(use_mask, own, given, found):
    x, _ = data()
    with rf.set_default_float_dtype_ctx(own):
        norm = rf.BatchNorm(F, use_mask=use_mask)
    y = norm(rf.cast(x, given))
    assert y.dtype == found and norm.running_mean.dtype == own
    np.testing.assert_allclose(y.raw_tensor.detach().float(), values(rf.BatchNorm(F, use_mask=use_mask)(x)), atol=0.05)


def by_hand(layer, x, h, c):
    """An LSTM over one sequence (T, in): outputs and last cell."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    outputs = []
    for frame in x:
        gates = values(layer.ff_weight) @ frame + values(layer.rec_weight) @ h + values(layer.bias)
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), c


@pytest.mark.parametrize("cls", [rf.LSTM, rf.ZoneoutLSTM])
def test_lstm_over_frames_and_step_by_step(cls):
    x, time = data()
    layer = cls(F, G) if cls is rf.LSTM else cls(F, G, parts_order="ifco")
    layer.bias.initial = random([4 * G], 4)
    state = layer.default_initial_state(batch_dims=[B])
    y, new = layer(x, state=state, spatial_dim=time)
    assert y.dims == (time, B, G)
    for b, n in enumerate(LENGTHS):
        want, cell = by_hand(layer, values(x)[b, :n], np.zeros(4), np.zeros(4))
        np.testing.assert_allclose(values(y)[:n, b], want, rtol=1e-4, atol=1e-6)
        assert (values(y)[n:, b] == 0).all()
        np.testing.assert_allclose(values(new.h)[b], want[-1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(values(new.c)[b], cell, rtol=1e-4, atol=1e-6)
    for t in range(3):
        frame = rf.gather(x, indices=t, axis=time)
        out, state = layer(frame, state=state, spatial_dim=rf.single_step_dim)
        np.testing.assert_allclose(values(out)[0], values(y)[t, 0], rtol=1e-4, atol=1e-6)
    with pytest.raises(WrongUse, match="h and c"):
        layer(x, state=rf.LstmState(h=state.h), spatial_dim=time)


def test_zoneout_in_evaluation_is_a_mean():
    x, time = data([2, 2, 2])
    layer = rf.ZoneoutLSTM(
        F, G, zoneout_factor_cell=0.3, zoneout_factor_output=0.2, forget_bias=1.0, parts_order="cifo"
    )
    plain = rf.LSTM(F, G)
    order = [1, 2, 0, 3]  # i, f, c, o among c, i, f, o
    for name in ("ff_weight", "rec_weight"):
        parts = values(getattr(layer, name)).reshape(4, 4, -1)[order]
        getattr(plain, name).initial = parts.reshape(16, -1)
    plain.bias.initial = np.repeat([0, 1, 0, 0], 4).astype("float32")
    state = layer.default_initial_state(batch_dims=[B])
    with rf.get_run_ctx().train_flag_ctx(False):
        y, new = layer(x, state=state, spatial_dim=time)
        steps = state
        for t in range(2):
            _, now = plain(rf.gather(x, indices=t, axis=time), state=steps, spatial_dim=rf.single_step_dim)
            steps = rf.LstmState(h=now.h * 0.8 + steps.h * 0.2, c=now.c * 0.7 + steps.c * 0.3)
    np.testing.assert_allclose(values(y)[-1], values(steps.h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(new.c), values(steps.c), rtol=1e-5, atol=1e-6)
    with pytest.raises(WrongUse, match="parts_order"):
        rf.ZoneoutLSTM(F, G, parts_order="ifoo")
