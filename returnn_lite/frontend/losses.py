"""Losses per frame: `cross_entropy`, label smoothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

import returnn_lite.ops.cross_entropy as ops_cross_entropy
import returnn_lite.ops.gradients as ops_gradients
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.gather import sparse_to_dense
from returnn_lite.frontend.layout import arranged, axis_of, joined, show
from returnn_lite.frontend.tensor import Tensor

_TYPES = ("logits", "log-probs", "probs")


def cross_entropy(*, estimated: Tensor, target: Tensor, axis: Dim, estimated_type: str) -> Tensor:
    """-Σ target · log(probability) over an axis. The target: classes of the axis, or probabilities with the axis.

    estimated_type: "logits", "log-probs" or "probs". Axes: those of `estimated` without `axis`.
    """
    if estimated_type not in _TYPES:
        raise WrongUse(f"`estimated_type` must be one of {', '.join(_TYPES)}, but is {estimated_type!r} instead")
    axis_of(estimated.dims, axis, f"cross_entropy: estimated {estimated}")
    rest = tuple(dim for dim in estimated.dims if dim != axis)
    sparse = target.sparse_dim is not None
    if not sparse:
        axis_of(target.dims, axis, f"cross_entropy: target {target}")
    others = tuple(dim for dim in target.dims if dim != axis)
    if estimated_type == "logits" and (len(others) != len(rest) or any(dim not in rest for dim in others)):
        raise WrongUse(f"cross_entropy: the axes {show(others)} of the target must be those of {estimated} but {axis}")
    dims = joined(rest, others)
    scores = arranged(estimated.raw_tensor, estimated.dims, (*dims, axis))
    wanted = arranged(target.raw_tensor, target.dims, dims if sparse else (*dims, axis))
    if estimated_type == "probs":
        scores = scores.log()
    if estimated_type == "logits":
        raw = _of_logits(scores, wanted, sparse)
    elif sparse:
        shape = torch.broadcast_shapes(scores.shape[:-1], wanted.shape)
        raw = -ops_cross_entropy.pick(scores.expand(*shape, -1), wanted.expand(shape))
    else:
        raw = -(scores * wanted).sum(-1)
    return estimated._new(raw, dims, name="cross_entropy")


def _of_logits(logits: torch.Tensor, wanted: torch.Tensor, sparse: bool) -> torch.Tensor:
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if not sparse:
        return -(logits.log_softmax(-1) * wanted).sum(-1)
    rows = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1).long(), reduction="none")
    return rows.reshape(wanted.shape)


def label_smoothing(prob: Tensor, smoothing: float | Tensor, *, axis: Dim | None = None) -> Tensor:
    """Probabilities of which `smoothing` is spread over all other classes evenly; of classes or of probabilities."""
    dim = axis if axis is not None else prob.feature_dim_or_sparse_dim
    if dim is None or dim.dimension is None:
        raise WrongUse(f"label_smoothing of {prob}: `axis` must be an axis of a fixed size")
    n = dim.dimension
    if prob.sparse_dim is None:
        axis_of(prob.dims, dim, f"label_smoothing: {prob}")
    else:
        return sparse_to_dense(prob, label_value=1.0 - smoothing, other_value=smoothing / (n - 1), axis=dim)
    found = prob * (1.0 - smoothing * (n / (n - 1))) + smoothing / (n - 1)
    return found


def smooth_one_hot(source: Tensor, *, label_prob: float | Tensor) -> Tensor:
    """`label_prob` for the class, the rest distributed evenly over the others."""
    dim = source.sparse_dim
    if dim is None or dim.dimension is None:
        raise WrongUse(f"smooth_one_hot of {source}: it must have classes of a fixed number")
    return sparse_to_dense(source, label_value=label_prob, other_value=(1.0 - label_prob) / (dim.dimension - 1))


def label_smoothed_log_prob_gradient(
    log_prob: Tensor, smoothing: float, *, axis: Dim | None = None, exclude_labels: Sequence[int] | None = None
) -> Tensor:
    """The same log probabilities, with the gradient that a loss with smoothed labels would have.

    With f = smoothing / (classes - 1) a gradient g becomes (1 - f · classes) g - f Σ|g|. exclude_labels: classes that
    keep their gradient and do not count.
    """
    if isinstance(smoothing, int | float) and smoothing == 0:
        return log_prob
    dim = axis if axis is not None else log_prob.feature_dim
    if dim is None or dim.dimension is None:
        raise WrongUse(f"label_smoothed_log_prob_gradient of {log_prob}: `axis` must be an axis of a fixed size")
    at = axis_of(log_prob.dims, dim, str(log_prob))
    excluded = list(exclude_labels or ())
    n = dim.dimension - len(excluded)
    floor = smoothing / (n - 1)
    kept = None
    if excluded:
        kept = torch.zeros(dim.dimension, dtype=torch.bool)
        kept[excluded] = True
        kept = kept.reshape([-1 if i == at else 1 for i in range(len(log_prob.dims))]).to(log_prob.raw_tensor.device)
    raw = ops_gradients.scaled_gradient(log_prob.raw_tensor, 1.0 - n * floor, -floor, at, kept=kept)
    return log_prob._like(raw)
