"""Encoders, decoders, losses, audio: parameters, padding, frame by frame, gradients."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from returnn_lite import frontend as rf
from returnn_lite.frontend.decoder.transformer import (
    FeedForwardGated,
    TransformerDecoder,
    TransformerDecoderLayer,
    make_norm,
)
from returnn_lite.frontend.encoder.conformer import (
    ConformerConvSubsample,
    ConformerEncoder,
    ConformerEncoderLayer,
    ConformerPositionwiseFeedForward,
)
from returnn_lite.frontend.encoder.conformer_v2 import ConformerEncoderV2, ConformerFrontend
from returnn_lite.frontend.encoder.e_branchformer import EBranchformerLayer
from returnn_lite.frontend.encoder.transformer import TransformerEncoder
from returnn_lite.frontend.errors import WrongUse
from tests.frontend.helpers import random, same, sized, values

B, F, M, V = rf.Dim(2, name="batch"), rf.Dim(6, name="in"), rf.Dim(8, name="model"), rf.Dim(5, name="vocab")


def features(lengths, dim=F, seed=0):
    """(tensor [B, T, F], T)"""
    time = sized(lengths, B)
    return random([B, time, dim], seed, feature_dim=dim), time


def labels(lengths):
    """(classes [B, T], T)"""
    time = sized(lengths, B, "labels")
    raw = np.random.RandomState(3).randint(0, 5, (2, max(lengths))).astype("int32")
    return rf.convert_to_tensor(raw, dims=[B, time], sparse_dim=V), time


def evaluation():
    """No dropout."""
    return rf.get_run_ctx().train_flag_ctx(False)


def conformer(**options):
    """A small one."""
    front = rf.build_dict(ConformerConvSubsample, out_dims=[3, 4], filter_sizes=[(3, 3), (3, 3)], strides=[(2, 1), 1])
    layer = rf.build_dict(ConformerEncoderLayer, num_heads=2, conv_kernel_size=3, ff_dim=7)
    return ConformerEncoder(F, M, **{"num_layers": 2, "input_layer": front, "encoder_layer": layer, **options})


def test_conformer(version):
    version(30)
    model = conformer()
    names = [name for name, _ in model.named_parameters()]
    assert names[:3] == [
        "input_projection.weight",
        "input_layer.conv_layers.0.filter",
        "input_layer.conv_layers.0.bias",
    ]
    assert "layers.1.conv_block.norm.running_variance" in names and "layers.0.self_att.linear_pos.weight" in names
    assert model.input_layer.out_dim.dimension == 24 and model.input_layer.downsample_factor == 2
    x, time = features([9, 5])
    with evaluation():
        y, out = model(x, in_spatial_dim=time)
        assert y.dims == (B, out, M) and out.dyn_size.tolist() == [5, 3]
        assert model.input_layer.get_out_spatial_dim(time) == out
        alone = rf.Dim(rf.convert_to_tensor(np.array([5], "int32"), dims=[one := rf.Dim(1, name="one")]), name="alone")
        z, _ = model(rf.convert_to_tensor(values(x)[1:, :5].copy(), dims=[one, alone, F]), in_spatial_dim=alone)
    np.testing.assert_allclose(values(z)[0], values(y)[1, :3], rtol=1e-3, atol=1e-4)
    first, second = (model.layers[name].ffn1.linear_ff.weight for name in ("0", "1"))
    assert not np.array_equal(values(first), values(second))
    collected = {}
    model(x, in_spatial_dim=time, collected_outputs=collected)
    assert list(collected) == ["0", "1"]


def test_conformer_layer_by_its_parts():
    layer = ConformerEncoderLayer(M, num_heads=2, conv_kernel_size=3)
    x, time = features([4, 3], M)
    with evaluation():
        a = layer.ffn1(layer.ffn1_layer_norm(x)) * 0.5 + x
        b = layer.self_att(layer.self_att_layer_norm(a), axis=time) + a
        c = layer.conv_block(layer.conv_layer_norm(b), spatial_dim=time) + b
        d = layer.ffn2(layer.ffn2_layer_norm(c)) * 0.5 + c
        same(layer(x, spatial_dim=time), [B, time, M], values(layer.final_layer_norm(d)))
    ff = rf.build_dict(ConformerPositionwiseFeedForward, activation=rf.build_dict(rf.relu_square), with_bias=False)
    relu = ConformerEncoderLayer(M, num_heads=2, ff=ff)
    assert relu.ffn1.activation is rf.relu_square and relu.ffn1.linear_ff.bias is None
    assert layer.ffn1.activation is rf.swish
    with pytest.raises(WrongUse, match="conv_norm"):
        ConformerEncoderLayer(M, conv_norm=3)


def test_conformer_of_two_parts_and_e_branchformer():
    x, time = features([6, 3])
    front, layers = (
        ConformerFrontend(F, M, input_layer=None),
        ConformerEncoderV2(
            M, num_layers=2, encoder_layer=EBranchformerLayer, encoder_layer_opts={"num_heads": 2, "ff_dim": 5}
        ),
    )
    with evaluation():
        y, same_time = front(x, in_spatial_dim=time)
        z = layers(y, spatial_dim=time)
    assert same_time is time and z.dims == (B, time, M)
    names = {name for name, _ in layers.named_parameters()}
    assert {"layers.0.merge.depthwise_conv_fusion.filter", "layers.1.cgmlp.conv.bias"} <= names


DECODERS = {
    "plain": {},
    "llama": {
        "ff": FeedForwardGated,
        "norm": rf.RMSNorm,
        "pos_enc": None,
        "layer_opts": {"self_att": rf.build_dict(rf.RotaryPosCausalSelfAttention, with_bias=False)},
    },
    "relative": {"layer": rf.build_dict(TransformerDecoderLayer, self_att=rf.RelPosCausalSelfAttention, ff_dim=5)},
    "embedded": {"embed_dim": rf.Dim(4, name="embed"), "share_embedding": False, "logits_with_bias": True},
}


@pytest.mark.parametrize("options", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("with_encoder", [True, False])
def test_decoder_frame_by_frame(options, with_encoder):
    model = TransformerDecoder(F if with_encoder else None, V, M, num_layers=2, num_heads=2, **options)
    for i, parameter in enumerate(model.parameters()):
        parameter.initial = values(random(parameter.dims, i)) * 0.3
    x, time = labels([4, 3])
    encoder = None
    if with_encoder:
        source, enc_time = features([5, 2])
        encoder = model.transform_encoder(source, axis=enc_time)
    with evaluation():
        start = model.default_initial_state(batch_dims=[B])
        y, full = model(x, spatial_dim=time, state=start, encoder=encoder)
        last, _ = model(x, spatial_dim=time, state=start, encoder=encoder, output_only_last_frame=True)
        state, frames = start, []
        for t in range(3):
            out, state = model(
                rf.gather(x, indices=t, axis=time), spatial_dim=rf.single_step_dim, state=state, encoder=encoder
            )
            frames.append(values(out))
    assert y.dims == (B, time, V) and int(state.pos.raw_tensor) == 3 and full.pos.raw_tensor.tolist() == [4, 3]
    np.testing.assert_allclose(np.stack(frames, 1), values(y)[:, :3], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(values(last)[1], values(y)[1, 2], rtol=1e-4, atol=1e-5)


def test_decoder_defaults_by_version(version):
    for number, shared, scale, drop in ((19, False, 1.0, 0.0), (20, True, math.sqrt(8), 0.1)):
        version(number)
        model = TransformerDecoder(None, V, M, num_layers=1, num_heads=2)
        assert (model.logits.weight is model.input_embedding.weight) == shared
        assert (model.input_embedding_scale, model.input_dropout) == (pytest.approx(scale), drop)
    with pytest.raises(WrongUse, match="did you mean"):
        TransformerDecoder(None, V, M, num_layers=1, num_head=2)
    with pytest.raises(WrongUse, match="share_embedding"):
        TransformerDecoder(None, V, M, num_layers=1, num_heads=2, share_embedding=True, logits_with_bias=True)
    assert FeedForwardGated(rf.Dim(192, name="m")).linear_out.in_dim.dimension == 512
    with pytest.raises(WrongUse, match="norm"):
        make_norm(3, M)


def test_transformer_encoder():
    model = TransformerEncoder(V, M, num_layers=2, num_heads=2)
    x, time = labels([4, 2])
    with evaluation():
        y = model(x, spatial_dim=time)
        alone = rf.Dim(2, name="alone")
        z = model(rf.convert_to_tensor(values(x)[1, :2].copy(), dims=[alone], sparse_dim=V), spatial_dim=alone)
    assert y.dims == (B, time, M)
    np.testing.assert_allclose(values(z), values(y)[1, :2], rtol=1e-3, atol=1e-4)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_cross_entropy():
    x, time = features([4, 2], V)
    y = labels([4, 2])[0]
    y = rf.convert_to_tensor(values(y), dims=[B, time], sparse_dim=V)
    want = functional.cross_entropy(x.raw_tensor.reshape(-1, 5), y.raw_tensor.reshape(-1).long(), reduction="none")
    log_probs = rf.log_softmax(x, axis=V)
    for kind, estimated in (("logits", x), ("log-probs", log_probs), ("probs", rf.exp(log_probs))):
        found = rf.cross_entropy(estimated=estimated, target=y, axis=V, estimated_type=kind)
        same(found, [B, time], want.reshape(2, 4).numpy(), atol=1e-5)
        dense = rf.cross_entropy(estimated=estimated, target=rf.one_hot(y), axis=V, estimated_type=kind)
        same(dense, [B, time], want.reshape(2, 4).numpy(), atol=1e-5)
    turned = x.copy_transpose([V, time, B])
    same(rf.cross_entropy(estimated=turned, target=y, axis=V, estimated_type="logits"), [time, B], want.reshape(2, 4).T)
    with pytest.raises(WrongUse, match="estimated_type"):
        rf.cross_entropy(estimated=x, target=y, axis=V, estimated_type="softmax")
    with pytest.raises(WrongUse, match="must be those"):
        rf.cross_entropy(estimated=x, target=rf.gather(y, indices=0, axis=time), axis=V, estimated_type="logits")


def test_smoothing_the_gradient_is_smoothing_the_labels():
    x, time = features([4, 2], V)
    y = rf.convert_to_tensor(values(labels([4, 2])[0]), dims=[B, time], sparse_dim=V)
    rf.set_requires_gradient(x)
    log_probs = rf.log_softmax(x, axis=V)
    smooth = rf.label_smoothed_log_prob_gradient(log_probs, 0.2, axis=V)
    by_gradient = rf.cross_entropy(estimated=smooth, target=y, axis=V, estimated_type="log-probs")
    target = rf.label_smoothing(y, 0.2)
    by_label = rf.cross_entropy(estimated=log_probs, target=target, axis=V, estimated_type="log-probs")
    a, b = (rf.gradient(rf.reduce_sum(loss, axis=[B, time], use_mask=False), x) for loss in (by_gradient, by_label))
    np.testing.assert_allclose(values(a), values(b), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values(target).sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(values(rf.smooth_one_hot(y, label_prob=0.6)).max(-1), 0.6, rtol=1e-5)


def test_excluded_labels_keep_their_gradient():
    x = random([B, V])
    rf.set_requires_gradient(x)
    y = rf.label_smoothed_log_prob_gradient(x, 0.3, axis=V, exclude_labels=[2])
    g = random([B, V], 1)
    found = values(rf.gradient(rf.reduce_sum(y * g, axis=[B, V]), x))
    floor = 0.3 / 3
    want = (1 - 4 * floor) * values(g) - floor * np.abs(values(g)).sum(-1, keepdims=True)
    want[:, 2] = values(g)[:, 2]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_ctc():
    x, time = features([7, 3], V)
    targets_time = sized([2, 3], B, "targets")
    y = rf.convert_to_tensor(
        np.array([[1, 1, 0], [1, 1, 1]], "int32"), dims=[B, targets_time], sparse_dim=rf.Dim(4, name="w")
    )
    rf.set_requires_gradient(x)
    problem = {"targets": y, "input_spatial_dim": time, "targets_spatial_dim": targets_time, "blank_index": 4}
    loss = rf.ctc_loss(logits=x, **problem)
    want = functional.ctc_loss(
        x.raw_tensor[:1].log_softmax(-1).transpose(0, 1), torch.tensor([[1, 1]]), (7,), (2,), blank=4, reduction="none"
    )
    np.testing.assert_allclose(values(loss), [want.item(), 0.0], rtol=1e-4, atol=1e-5)  # the second cannot be
    gradient = values(rf.gradient(rf.reduce_sum(loss, axis=B), x))
    assert (gradient[1] == 0).all() and np.abs(gradient[0]).max() > 0
    best = rf.ctc_loss(logits=x, max_approx=True, **problem)
    path = rf.ctc_best_path(logits=x, **problem)
    assert path.dims == (time, B)
    score = rf.gather(rf.log_softmax(x, axis=V), indices=path).copy_transpose([time, B])
    assert values(best)[0] == pytest.approx(-values(score)[:, 0].sum(), rel=1e-4)
    with pytest.raises(WrongUse, match="blank_index"):
        rf.ctc_loss(logits=x, **{**problem, "blank_index": 5})


# --- audio ------------------------------------------------------------------------------------------------------------


def test_log_mel_features_of_a_tone():
    samples = sized([4000, 2500], B, "samples", dtype="int32")
    wave = np.sin(2 * np.pi * 1000 * np.arange(4000) / 16000).astype("float32")
    x = rf.convert_to_tensor(np.stack([wave, wave]), dims=[B, samples])
    mel = rf.Dim(40, name="mel")
    y, frames = rf.audio.log_mel_filterbank_from_raw(x, in_spatial_dim=samples, out_dim=mel)
    assert y.dims == (B, frames, mel) and y.feature_dim is mel
    assert frames.dyn_size.tolist() == [-(-(n - 400 + 1) // 160) for n in (4000, 2500)]
    edges = 700 * (np.exp(np.linspace(0, 1125 * np.log1p(8000 / 700), 42) / 1125) - 1)
    assert np.abs(edges[1:-1] - 1000).argmin() == values(y)[0, 3].argmax()
    same(y, y.dims, values(y).clip(min=-10))


def test_specaugment_hides_whole_frames_and_features(version):
    time, dim = sized([60] * 40 + [20] * 40, many := rf.Dim(80, name="many")), rf.Dim(25, name="features")
    x = rf.ones([many, time, dim])
    with rf.RunContext("train_step", 1, 5000, True).running():
        y = values(rf.audio.specaugment(x, spatial_dim=time, feature_dim=dim, num_spatial_mask_factor=20))
    hidden = y == 0
    frames, columns = hidden.all(2), hidden.all(1)
    assert (hidden == (frames[:, :, None] | columns[:, None])).all()
    assert frames.any(1).mean() > 0.9 and columns.any(1).mean() > 0.9 and not hidden.all()
    with evaluation():
        assert rf.audio.specaugment(x, spatial_dim=time, feature_dim=dim) is x
    one = values(rf.audio.random_mask(x, mask_axis=time, broadcast_axis=dim, min_num=3, max_num=3, max_dims=1)) == 0
    assert (one.all(2).sum(1) == 3).all() and not one[40:, 20:].any()
    with pytest.raises(WrongUse, match="feature_dim"):
        rf.audio.specaugment(x, spatial_dim=time)
