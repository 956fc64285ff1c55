"""Models written with the frontend for tests: a framewise net, and a search over its labels."""

import numpy as np

from returnn_lite import frontend as rf
from tests.engine import torch_models

time_dim, feature_dim, class_dim = rf.Dim(None, name="time"), rf.Dim(4, name="features"), rf.Dim(4, name="classes")
EXTERN = {
    "data": {"dims": [rf.batch_dim, time_dim, feature_dim], "dtype": "float32", "feature_dim": feature_dim},
    "classes": {"dims": [rf.batch_dim, time_dim], "sparse_dim": class_dim, "dtype": "int32"},
}


class Affine(rf.Module):
    """y = x W + b"""

    def __init__(self, in_dim, out_dim):
        self.in_dim, self.out_dim = in_dim, out_dim
        self.weight = rf.Parameter([in_dim, out_dim], initial=rf.init.Glorot())
        self.bias = rf.Parameter([out_dim])

    def __call__(self, x):
        return rf.matmul(x, self.weight, reduce=self.in_dim) + self.bias


class Net(rf.Module):
    """(B, T, features) -> log probabilities; it keeps the mean of its inputs."""

    def __init__(self):
        hidden = rf.Dim(5, name="hidden")
        self.mean = rf.RunningMean(feature_dim, alpha=0.1)
        self.layers = rf.Sequential(Affine(feature_dim, hidden), rf.tanh, Affine(hidden, class_dim))

    def __call__(self, x):
        self.mean(x)
        return rf.log_softmax(self.layers(rf.dropout(x, 0.1)), axis=class_dim)


def get_model(*, epoch, step, **_):
    return Net()


def train_step(*, model, extern_data, **_):
    data, classes = extern_data["data"], extern_data["classes"]
    log_probs = model(data)
    ce = -rf.gather(log_probs, indices=classes, axis=class_dim)
    ce.mark_as_loss("ce", custom_inv_norm_factor=time_dim.get_size_tensor(), use_normalized_loss=True)
    rf.cast(rf.reduce_argmax(log_probs, axis=class_dim) != classes, "float32").mark_as_loss("fer", as_error=True)


def forward_step(*, model, extern_data, **_):
    data = extern_data["data"]
    log_probs = model(data)
    log_probs.mark_as_default_output(shape=[rf.batch_dim, time_dim, class_dim])
    _, best, beam = rf.top_k(log_probs, axis=class_dim, k_dim=rf.Dim(2, name="beam"))
    best = rf.cast(best, "int32")
    repeated = best == rf.shift_right(best, axis=time_dim, pad_value=-1)
    labels, length = rf.masked_select(best, mask=~repeated, dims=[time_dim])
    rf.get_run_ctx().mark_as_output(labels, "labels", dims=[rf.batch_dim, beam, length])


class Callback:
    """Keeps what it is handed."""

    def __init__(self):
        self.found = {}

    def init(self, *, model):
        assert isinstance(model, Net)

    def process_seq(self, *, seq_tag, outputs):
        self.found[seq_tag] = {key: np.asarray(outputs[key].raw_tensor) for key in outputs}
        lengths = outputs["labels"].dims[1].dyn_size_ext.raw_tensor
        self.found[seq_tag]["lengths"] = np.asarray(lengths)

    def finish(self):
        self.found["finished"] = True


def options(folder, **changes):
    """A whole training run of such a model."""
    made = {"get_model": get_model, "train_step": train_step, "forward_step": forward_step, "extern_data": EXTERN}
    return torch_models.options(folder, **{**made, **changes})
