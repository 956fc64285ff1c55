"""Attention of all kinds: against a softmax by hand, and over whole sequences against step by step."""

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.frontend.attention import _apply_rope, _rel_pos_enc_shift
from returnn_lite.frontend.errors import WrongUse
from tests.frontend.helpers import random, same, sized, values

B, F = rf.Dim(3, name="batch"), rf.Dim(8, name="in")
LENGTHS = [6, 4, 1]
OPTIONS = {"key_dim_total": F, "value_dim_total": F, "num_heads": 2, "att_dropout": 0.0}
CAUSAL = [
    (rf.CausalSelfAttention, {}),
    (rf.RotaryPosCausalSelfAttention, {}),
    (rf.RelPosCausalSelfAttention, {}),
    (rf.RelPosCausalSelfAttention, {"learnable_pos_emb": True, "learnable_pos_emb_clipping": 2}),
]


def softmax(x):
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q, k, v, seen=None):
    """One head: (Q, D), (K, D), (K, V) -> (Q, V)"""
    energies = q @ k.T / np.sqrt(q.shape[-1])
    return softmax(energies if seen is None else np.where(seen, energies, -np.inf)) @ v


def data(lengths=LENGTHS, seed=0):
    """(tensor [B, T, F], T)"""
    time = sized(lengths, B)
    return random([B, time, F], seed, feature_dim=F), time


def module(cls, **options):
    """With parameters that are all random, without zeros."""
    found = cls(F, F, **OPTIONS, **options)
    for i, parameter in enumerate(found.parameters()):
        parameter.initial = values(random(parameter.dims, i)) * 0.5
    return found


@pytest.mark.parametrize("causal", [False, True])
def test_dot_attention(causal):
    keys, time = rf.Dim(4, name="keys"), sized(LENGTHS, B)
    q, k, v = (random([B, time, keys], i) for i in range(3))
    options = {"causal_query_spatial_dim": time} if causal else {}
    y = rf.dot_attention(q, k, v, key_dim=keys, axis=time, **options)
    assert y.dims == (B, time, keys)
    for b, n in enumerate(LENGTHS):
        seen = np.tri(n, dtype=bool) if causal else None
        want = attend(values(q)[b, :n], values(k)[b, :n], values(v)[b, :n], seen)
        np.testing.assert_allclose(values(y)[b, :n], want, rtol=1e-4, atol=1e-5)
    with pytest.raises(WrongUse, match="no axis"):
        rf.dot_attention(q, k, v, key_dim=keys, axis=rf.Dim(3, name="other"))


def test_axes_of_dot_attention():
    """Axes of the query that the keys lack, and the other way round."""
    keys, vals, time = rf.Dim(4, name="keys"), rf.Dim(5, name="vals"), sized(LENGTHS, B)
    beam, head, own = rf.Dim(2, name="beam"), rf.Dim(3, name="head"), rf.Dim(7, name="own")
    q, k, v = random([own, beam, B, keys]), random([B, time, head, keys], 1), random([time, B, vals], 2)
    y = rf.dot_attention(q, k, v, key_dim=keys, axis=time, scale=1.0)
    assert y.dims == (own, beam, B, head, vals)
    weights = softmax(
        np.einsum("qbBd,Bthd->qbBht", values(q), np.where(values(time.get_mask())[..., None, None], values(k), 0))
        + np.where(values(time.get_mask()), 0, -np.inf)[:, None]
    )
    want = np.einsum("qbBht,tBv->qbBhv", weights, values(v))
    np.testing.assert_allclose(values(y), want, rtol=1e-4, atol=1e-5)


def test_self_attention_has_query_key_value_per_head():
    x, time = data()
    layer = module(rf.SelfAttention)
    y = layer(x, axis=time)
    qkv = values(x) @ values(layer.qkv.weight) + values(layer.qkv.bias)
    for b, n in enumerate(LENGTHS):
        heads = [np.split(part, 3, -1) for part in np.split(qkv[b, :n], 2, -1)]
        both = np.concatenate([attend(*parts) for parts in heads], -1)
        want = both @ values(layer.proj.weight) + values(layer.proj.bias)
        np.testing.assert_allclose(values(y)[b, :n], want, rtol=1e-4, atol=1e-4)
    with pytest.raises(WrongUse, match="multiple of the number of heads"):
        rf.SelfAttention(F, F, key_dim_total=F, value_dim_total=F, num_heads=3)


@pytest.mark.parametrize("cls, options", CAUSAL)
def test_causal_attention_frame_by_frame_and_behind_prefixes(cls, options):
    """Prefixes may have a length of their own in each sequence."""
    lengths = [6, 5, 4]
    x, time = data(lengths)
    layer = module(cls, **options)
    y, full = layer(x, axis=time)
    assert full.accum_axis == time
    state, frames = layer.default_initial_state(batch_dims=[B]), []
    for t in range(4):
        out, state = layer(rf.gather(x, indices=t, axis=time), axis=rf.single_step_dim, state=state)
        frames.append(values(out))
    np.testing.assert_allclose(np.stack(frames, 1), values(y)[:, :4], rtol=1e-4, atol=1e-5)
    before = [3, 1, 2]
    prefix, rest = sized(before, B, "prefix"), sized([3, 3, 1], B, "rest")
    raw = values(x)
    later = np.stack(
        [np.pad(raw[b, n : n + 3], ((0, 3 - len(raw[b, n : n + 3])), (0, 0))) for b, n in enumerate(before)]
    )
    _, state = layer(rf.convert_to_tensor(raw[:, :3].copy(), dims=[B, prefix, F]), axis=prefix)
    z, state = layer(rf.convert_to_tensor(later, dims=[B, rest, F]), axis=rest, state=state)
    assert state.accum_axis.dyn_size.tolist() == [6, 4, 3]
    z = values(z.copy_transpose([B, rest, F]))
    for b, (n, m) in enumerate(zip(before, [3, 3, 1], strict=True)):
        np.testing.assert_allclose(z[b, :m], values(y)[b, n : n + m], rtol=1e-4, atol=1e-5)
    one, _ = layer(rf.convert_to_tensor(raw[[0, 1, 2], [5, 4, 3]], dims=[B, F]), axis=rf.single_step_dim, state=state)
    assert one.dims == (B, F)
    with pytest.raises(WrongUse, match="state"):
        layer(rf.gather(x, indices=0, axis=time), axis=rf.single_step_dim)


@pytest.mark.parametrize("options", [{}, {"separate_pos_emb_per_head": False}, {"with_pos_bias": False}])
def test_relative_positions_by_hand(options):
    x, time = data()
    layer = module(rf.RelPosSelfAttention, **options)
    y = layer(x, axis=time)
    qkv = values(x) @ values(layer.qkv.weight) + values(layer.qkv.bias)
    b, n = 1, LENGTHS[1]
    rates = 10000.0 ** (-np.arange(4) / 4)
    found = []
    for head in range(2):
        q, k, v = np.split(qkv[b, :n, 12 * head : 12 * head + 12], 3, -1)
        u, w = (values(p)[head] if p is not None else 0 for p in (layer.pos_bias_u, layer.pos_bias_v))
        distance = np.arange(n)[None] - np.arange(n)[:, None]
        angles = distance[..., None] * rates
        table = np.concatenate([np.sin(angles), np.cos(angles)], -1) @ values(layer.linear_pos.weight)
        if options.get("separate_pos_emb_per_head", True):
            table = table[..., 4 * head : 4 * head + 4]
        energies = (q + u) @ k.T + np.einsum("id,ijd->ij", q + w, table)
        found.append(softmax(energies / 2) @ v)
    want = np.concatenate(found, -1) @ values(layer.proj.weight) + values(layer.proj.bias)
    np.testing.assert_allclose(values(y)[b, :n], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", [rf.SelfAttention, rf.RotaryPosSelfAttention, rf.RelPosSelfAttention])
def test_padding_is_not_seen(cls):
    x, time = data()
    layer = module(cls)
    alone = rf.Dim(4, name="alone")
    z = layer(rf.convert_to_tensor(values(x)[1, :4].copy(), dims=[alone, F]), axis=alone)
    np.testing.assert_allclose(values(z), values(layer(x, axis=time))[1, :4], rtol=1e-4, atol=1e-5)


def test_cross_attention():
    x, time = data()
    E, enc_time = rf.Dim(5, name="enc"), sized([3, 5, 2], B, "enc-time")  # noqa: N806 - an axis
    layer = rf.CrossAttention(E, F, F, **OPTIONS)
    encoder = random([B, enc_time, E], 3)
    state = layer.transform_encoder(encoder, axis=enc_time)
    y = layer(x, state)
    one = layer(rf.gather(x, indices=2, axis=time), state)
    np.testing.assert_allclose(values(one), values(y)[:, 2], rtol=1e-4, atol=1e-5)
    kv = values(encoder)[2, :2] @ values(layer.kv.weight)
    q = values(x)[2] @ values(layer.q.weight)
    parts = [attend(q[:, i : i + 4], kv[:, 2 * i : 2 * i + 4], kv[:, 2 * i + 4 : 2 * i + 8]) for i in (0, 4)]
    np.testing.assert_allclose(
        values(y)[2], np.concatenate(parts, -1) @ values(layer.proj.weight), rtol=1e-3, atol=1e-4
    )


def test_dropout_of_weights_is_shared_up_to_version_18(version):
    version(18)
    assert module(rf.SelfAttention).att_dropout_broadcast
    version(19)
    assert not module(rf.SelfAttention).att_dropout_broadcast
    keys, time = rf.Dim(4, name="keys"), rf.Dim(50, name="t")
    q, k = (random([time, keys], i) * 0.0 for i in range(2))
    v = rf.ones([time, keys])
    for broadcast in (True, False):
        y = values(rf.dot_attention(q, k, v, key_dim=keys, axis=time, att_dropout=0.5, att_dropout_broadcast=broadcast))
        assert (len(set(y[:, 0].round(4))) == 1) == broadcast
        assert abs(y.mean() - 1) < 0.4


def test_helpers():
    steps, keys, rows = rf.Dim(3, name="t"), rf.Dim(3, name="k"), rf.Dim(5, name="r")
    x = random([B, steps, rows])
    y = _rel_pos_enc_shift(x, steps, rows, keys)
    want = np.stack([values(x)[:, i, 2 - i : 5 - i] for i in range(3)], 1)
    same(y, [B, steps, keys], want)
    encoding = rf.sinusoidal_positional_encoding(spatial_dim=steps, feat_dim=F, base=10_000 ** (1 - 2 / 8))
    x = random([B, steps, F])
    turned = values(_apply_rope(x, encoding, F)).astype("float64")
    numbers = values(x)[..., 0::2] + 1j * values(x)[..., 1::2]
    angles = np.arange(3)[:, None] * 10000.0 ** (-2 * np.arange(4) / 8)
    want = numbers * np.exp(1j * angles)
    np.testing.assert_allclose(turned[..., 0::2], want.real, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(turned[..., 1::2], want.imag, rtol=1e-4, atol=1e-5)


def test_masks_are_those_of_the_batch_at_hand():
    layer = module(rf.RelPosSelfAttention)
    x, time = data()
    layer(x, axis=time)
    time.reset_eager()
    time.dyn_size_ext = rf.convert_to_tensor(np.array([2, 6, 6], "int32"), dims=[B])
    y = layer(x, axis=time)
    alone = rf.Dim(2, name="alone")
    want = layer(rf.convert_to_tensor(values(x)[0, :2].copy(), dims=[alone, F]), axis=alone)
    np.testing.assert_allclose(values(y)[0, :2], values(want), rtol=1e-4, atol=1e-5)
    assert torch.isfinite(y.raw_tensor).all()


def test_a_beam_is_one_more_axis():
    """Frame by frame, each hypothesis sees its own past."""
    layer, beam = module(rf.RotaryPosCausalSelfAttention), rf.Dim(2, name="beam")
    frames = [random([B, beam, F], i) for i in range(3)]
    both, alone = layer.default_initial_state(batch_dims=[B, beam]), layer.default_initial_state(batch_dims=[B])
    for frame in frames:
        y, both = layer(frame, axis=rf.single_step_dim, state=both)
        z, alone = layer(rf.gather(frame, indices=1, axis=beam), axis=rf.single_step_dim, state=alone)
        np.testing.assert_allclose(values(y)[:, 1], values(z), rtol=1e-4, atol=1e-5)
    assert both.accum_axis.dimension == 3 and y.dims == (B, beam, F)
