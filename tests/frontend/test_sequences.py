"""Sequences in a batch with two axes of sequences, of all lengths from 0 on: each gets what it gets alone.

And batches of which every sequence is empty.
"""

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.frontend.decoder.transformer import TransformerDecoder
from returnn_lite.frontend.encoder.conformer import ConformerConvSubsample, ConformerEncoderLayer
from returnn_lite.frontend.encoder.e_branchformer import EBranchformerLayer
from returnn_lite.frontend.encoder.transformer import TransformerEncoderLayer
from returnn_lite.frontend.tensor_array import TensorArray
from tests.frontend.helpers import random, sized

B, K, F = rf.Dim(3, name="B"), rf.Dim(2, name="K"), rf.Dim(8, name="F")
LENGTHS = np.array([[3, 1], [0, 2], [2, 5]], "int32")
HEADS = {"key_dim_total": F, "value_dim_total": F, "num_heads": 2}
CLASSES = rf.Dim(8, name="classes")


def classes(x):
    """Labels out of features, the same for the same frames."""
    found = rf.reduce_argmax(x, axis=F)
    return rf.set_sparse_dim(found, CLASSES)


def with_state(module):
    return lambda x, time, batch: (
        module(x, spatial_dim=time, state=module.default_initial_state(batch_dims=batch))[0],
        time,
    )


def causal(module):
    return lambda x, time, batch: (module(x, axis=time, state=module.default_initial_state(batch_dims=batch))[0], time)


def framewise(module, axis="spatial_dim"):
    return lambda x, time, batch: (module(x, **{axis: time}), time)


def over_time(module):
    return lambda x, time, batch: module(x, in_spatial_dim=time)


def decoded(x, time, batch):
    torch.manual_seed(4)
    decoder = TransformerDecoder(F, CLASSES, model_dim=8, num_layers=1, num_heads=2)
    state = decoder.default_initial_state(batch_dims=batch)
    encoder = decoder.transform_encoder(x, axis=time)
    return decoder(classes(x), spatial_dim=time, state=state, encoder=encoder)[0], time


MAKERS = {
    "lstm": lambda: with_state(rf.LSTM(F, rf.Dim(3))),
    "zoneout lstm": lambda: with_state(
        rf.ZoneoutLSTM(F, rf.Dim(3), zoneout_factor_cell=0.1, zoneout_factor_output=0.2, use_zoneout_output=False)
    ),
    "self-attention": lambda: framewise(rf.SelfAttention(F, F, **HEADS), "axis"),
    "rotary": lambda: framewise(rf.RotaryPosSelfAttention(F, None, **HEADS), "axis"),
    "relative": lambda: framewise(rf.RelPosSelfAttention(F, F, **HEADS), "axis"),
    "learned relative": lambda: framewise(
        rf.RelPosSelfAttention(F, F, **HEADS, learnable_pos_emb=True, with_linear_pos=False, with_pos_bias=False),
        "axis",
    ),
    "causal": lambda: causal(rf.CausalSelfAttention(F, F, **HEADS)),
    "causal rotary": lambda: causal(rf.RotaryPosCausalSelfAttention(F, F, **HEADS)),
    "causal relative": lambda: causal(rf.RelPosCausalSelfAttention(F, F, **HEADS)),
    "conv same": lambda: over_time(rf.Conv1d(F, rf.Dim(5), 3, padding="same")),
    "conv valid": lambda: over_time(rf.Conv1d(F, rf.Dim(5), 2, padding="valid", strides=2)),
    "conv strided": lambda: over_time(rf.Conv1d(F, rf.Dim(5), 3, padding="same", strides=2, groups=1)),
    "conv dilated": lambda: over_time(rf.Conv1d(F, rf.Dim(5), 3, padding="same", dilation_rate=2)),
    "transposed conv": lambda: over_time(rf.TransposedConv1d(F, rf.Dim(5), 3, padding="valid", strides=2)),
    "max pool": lambda: lambda x, time, _: rf.pool1d(x, mode="max", pool_size=2, padding="same", in_spatial_dim=time),
    "subsampling": lambda: over_time(
        ConformerConvSubsample(F, out_dims=[2, 3], filter_sizes=[3, 3], strides=[1, 2], pool_sizes=[(1, 2)])
    ),
    "conformer": lambda: framewise(ConformerEncoderLayer(F, num_heads=2, conv_kernel_size=3, conv_norm=rf.LayerNorm)),
    "e-branchformer": lambda: framewise(EBranchformerLayer(F, num_heads=2, cgmlp_conv_kernel=3)),
    "transformer": lambda: framewise(TransformerEncoderLayer(F, num_heads=2)),
    "decoder": lambda: decoded,
    "group norm": lambda: framewise(rf.GroupNormSpatial(F, num_groups=2)),
    "normalize": lambda: lambda x, time, _: (rf.normalize(x, axis=time), time),
    "softmax": lambda: lambda x, time, _: (rf.softmax(x, axis=time), time),
    "window": lambda: lambda x, time, _: rf.window(x, spatial_dim=time, window_dim=WINDOW),
    "pad": lambda: lambda x, time, _: (lambda y, dims: (y, dims[0]))(*rf.pad(x, axes=[time], padding=[(2, 1)])),
    "concat": lambda: lambda x, time, _: rf.concat((x, time), (x, time)),
    "reversed": lambda: lambda x, time, _: (rf.reverse_sequence(x, axis=time), time),
    "shifted": lambda: lambda x, time, _: (rf.shift_left(x, axis=time, pad_value=1.0, amount=2), time),
    "repeated": lambda: lambda x, time, _: rf.repeat(x, in_spatial_dim=time, repeats=2),
    "sliced": lambda: lambda x, time, _: rf.slice(x, axis=time, start=1),
    "selected": lambda: (
        lambda x, time, _: rf.masked_select(
            x, mask=rf.reduce_max(x, axis=F) > 1.2, dims=[time], out_dim=rf.Dim(None, name="selected")
        )
    ),
}
WINDOW = rf.Dim(3, name="window")


def frames_of(x, time):
    """The valid frames of each sequence."""
    rest = [dim for dim in x.dims if dim not in (B, K, time)]
    raw = x.copy_transpose([B, K, time, *rest]).raw_tensor.detach()
    sizes = time.get_size_tensor().copy_compatible_to_dims([B, K], unbroadcast=True).raw_tensor
    return {(b, k): raw[b, k, : sizes[b, k]] for b in range(3) for k in range(2)}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 1, 0)])
def test_alone_and_in_a_batch(name, order, version):
    version(24)
    rf.init_train_step_run_ctx(train_flag=False)
    torch.manual_seed(2)
    run = MAKERS[name]()
    time = sized(LENGTHS, (B, K))
    x = random([B, K, time, F], feature_dim=F)
    found = frames_of(*run(x.copy_transpose(list(order)), time, [B, K]))
    for (b, k), length in np.ndenumerate(LENGTHS):
        if not length:
            continue
        alone = rf.Dim(rf.convert_to_tensor(np.array(length), dims=[]), name="alone")
        frames = rf.convert_to_tensor(x.raw_tensor[b, k, :length], dims=[alone, F], feature_dim=F)
        y, out = run(frames, alone, [])
        want = y.copy_transpose([out, *(dim for dim in y.dims if dim != out)]).raw_tensor.detach()
        torch.testing.assert_close(found[b, k], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "causal rotary", "causal relative"])
def test_frame_by_frame_and_behind_a_prefix(name, version):
    version(24)
    rf.init_train_step_run_ctx(train_flag=False)
    cls = {"causal": rf.CausalSelfAttention, "causal rotary": rf.RotaryPosCausalSelfAttention}
    module = cls.get(name, rf.RelPosCausalSelfAttention)(F, F, **HEADS)
    time = sized(LENGTHS, (B, K))
    x = random([B, K, time, F], feature_dim=F)
    start = module.default_initial_state(batch_dims=[B, K])
    whole = frames_of(module(x, axis=time, state=start)[0], time)
    state, outputs = start, []
    for frame in TensorArray.unstack(x, axis=time):
        y, state = module(frame, axis=rf.single_step_dim, state=state)
        outputs.append(y)
    steps = frames_of(rf.stack(outputs, out_dim=time)[0], time)
    first, last = (rf.convert_to_tensor(n, dims=[B, K]) for n in (LENGTHS.clip(max=2), (LENGTHS - 2).clip(min=0)))
    prefix, prefix_dim = rf.slice(x, axis=time, size=first)
    rest, rest_dim = rf.slice(x, axis=time, start=first, size=last)
    y, state = module(prefix, axis=prefix_dim, state=start)
    parts = [frames_of(y, prefix_dim), frames_of(module(rest, axis=rest_dim, state=state)[0], rest_dim)]
    for key, want in whole.items():
        torch.testing.assert_close(steps[key], want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_only_empty_sequences(name, version):
    version(24)
    rf.init_train_step_run_ctx(train_flag=False)
    time = sized(np.zeros((3, 2)), (B, K))
    x = random([B, K, time, F], feature_dim=F)
    x.raw_tensor.requires_grad_(True)
    y, out = MAKERS[name]()(x, time, [B, K])
    assert [dim.padded_size() for dim in y.dims] == list(y.raw_tensor.shape)
    if y.raw_tensor.requires_grad:
        y.raw_tensor.sum().backward()
        assert x.raw_tensor.grad is None or not x.raw_tensor.grad.numel()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("train", [False, True])
def test_gradients_beside_an_empty_sequence(name, train, version):
    version(18)  # whose dropout of attention weights is shared
    rf.init_train_step_run_ctx(train_flag=train)
    time = sized(LENGTHS, (B, K))
    x = random([B, K, time, F], feature_dim=F)
    x.raw_tensor.requires_grad_(True)
    y, _ = MAKERS[name]()(x, time, [B, K])
    if y.raw_tensor.requires_grad:
        y.copy_masked(0.0).raw_tensor.sum().backward()
        assert x.raw_tensor.grad is None or torch.isfinite(x.raw_tensor.grad).all()


def test_losses_of_empty_sequences(version):
    version(24)
    time, labels_time = sized([0, 0, 0], B), sized([0, 1, 0], B)
    logits = random([B, time, F], feature_dim=F)
    labels = rf.zeros([B, labels_time], dtype="int32")
    sequences = {"input_spatial_dim": time, "targets_spatial_dim": labels_time, "blank_index": 7, "targets": labels}
    assert rf.ctc_loss(logits=logits, **sequences).raw_tensor.tolist() == [0, 0, 0]
    assert rf.ctc_best_path(logits=logits, **sequences).raw_tensor.shape == (0, 3)
    read, read_dim = rf.ctc_greedy_decode(logits, in_spatial_dim=time, blank_index=7)
    assert rf.edit_distance(read, read_dim, labels, labels_time).raw_tensor.tolist() == [0, 1, 0]
    assert rf.edit_distance(read, read_dim, read, read_dim).raw_tensor.tolist() == [0, 0, 0]
    durations, axis = rf.ctc_durations_from_path(path=read, path_spatial_dim=read_dim, blank_index=7)
    assert axis.dyn_size.tolist() == [1, 1, 1] and durations.raw_tensor.tolist() == [[0], [0], [0]]
