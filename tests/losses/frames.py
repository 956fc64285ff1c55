"""Tensors for tests of losses: (B, T, V) with padding, sparse and dense targets."""

import torch

import returnn_lite.catalog  # noqa: F401 - fills the registers
from returnn_lite.losses.base import make_loss
from returnn_lite.tensor import Dim, Lengths, PreActivation, Spec, Tensor, batch_dim

TIME, LABELS = Dim(None, "time"), Dim(None, "labels")
CLASSES = Dim(5, "classes")
LENGTHS = [4, 2, 3]


def lengths(values=LENGTHS, dim=TIME):
    return {dim: Lengths.of(torch.tensor(values, dtype=torch.int32))}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames(data, pre=None, dim=CLASSES, ends=LENGTHS):
    """Dense output (B, T, V) of a layer; `pre`: (activation, values before it)."""
    axes = Spec((batch_dim, TIME, Dim(data.shape[-1], "feature") if dim is None else dim))
    return Tensor(data, axes, lengths(ends), pre=PreActivation(*pre) if pre else None)


def softmax_frames(logits):
    """Output of a softmax layer, which remembers its logits."""
    return frames(torch.softmax(logits, -1), ("softmax", logits))


def labels(data, time=TIME, ends=LENGTHS, classes=CLASSES):
    """Sparse target (B, T)."""
    return Tensor(data.int(), Spec((batch_dim, time), "int32", sparse_dim=classes), lengths(ends, time))


def random_labels(count=5, seed=1):
    return labels(torch.randint(0, count, (3, 4), generator=torch.Generator().manual_seed(seed)))


def loss(name, **options):
    return make_loss(name, options, 'network["output"]')[0]


def valid():
    """(b, t) of all valid frames."""
    return [(b, t) for b, n in enumerate(LENGTHS) for t in range(n)]
