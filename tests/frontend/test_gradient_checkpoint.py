"""rf.gradient_checkpoint_scope: a conformer layer and a decoder layer with the same numbers in less memory."""

import contextlib

import torch

import returnn_lite.frontend as rf
from returnn_lite.frontend.decoder.transformer import TransformerDecoder
from returnn_lite.frontend.encoder.conformer import ConformerEncoderLayer
from tests.frontend.helpers import sized
from tests.ops.test_recompute import Produced

B, features, classes = rf.Dim(3, name="B"), rf.Dim(16, name="F"), rf.Dim(5, name="classes")
time, labels_time = sized([90, 70, 40], B, "time"), sized([14, 2, 3], B, "labels")


class Model(rf.Module):
    def __init__(self):
        self.layers = [ConformerEncoderLayer(features, num_heads=2, conv_kernel_size=3) for _ in range(2)]
        self.first, self.second = self.layers
        self.decoder = TransformerDecoder(features, classes, model_dim=features, num_layers=1, num_heads=2)

    def __call__(self, x, labels, scope):
        for layer in self.layers:
            with scope():
                x = layer(x, spatial_dim=time)
        with scope():
            encoder = self.decoder.transform_encoder(x, axis=time)
            state = self.decoder.default_initial_state(batch_dims=[B])
            return self.decoder(labels, spatial_dim=labels_time, state=state, encoder=encoder)[0]


def trained(scope):
    """(gradients and statistics, bytes held before the way back)"""
    rf.set_random_seed(5)
    rf.init_train_step_run_ctx()
    model = Model()
    x, labels = rf.random_normal([B, time, features], feature_dim=features), rf.zeros([B, labels_time], dtype="int32")
    labels.sparse_dim = classes
    with Produced() as produced:
        logits = model(x, labels, scope)
        loss = rf.reduce_mean(
            rf.cross_entropy(estimated=logits, target=labels, axis=classes, estimated_type="logits"),
            axis=[B, labels_time],
        )
        held = produced.held()
    loss.raw_tensor.backward()
    raws = [p.raw_tensor for p in model.parameters()]
    return [raw if raw.grad is None else raw.grad for raw in raws], held


def test_the_same_numbers_in_less_memory():
    plain, much = trained(contextlib.nullcontext)
    again, little = trained(rf.gradient_checkpoint_scope)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert little < much / 6
