"""Connectionist temporal classification (Graves et al., 2006): loss and best alignment."""

from __future__ import annotations

import torch

import returnn_lite.ops.ctc as ops_ctc
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, as_rows, axis_of, joined
from returnn_lite.frontend.sizes import sizes_over
from returnn_lite.frontend.tensor import Tensor


def ctc_loss(
    *,
    logits: Tensor,
    logits_normalized: bool = False,
    targets: Tensor,
    input_spatial_dim: Dim,
    targets_spatial_dim: Dim,
    blank_index: int,
    max_approx: bool = False,
    use_native_op: bool | None = None,
    label_loop: bool = True,
) -> Tensor:
    """-log of the summed probability of all alignments of each sequence; 0 where there is none.

    The classes are the feature axis of the logits. logits_normalized: they are log probabilities. max_approx: only the
    best alignment counts. label_loop=False: a label takes one frame. Axes: the batch axes of both.
    """
    batch, scores, lengths, labels, label_lengths = _problem(
        logits, targets, input_spatial_dim, targets_spatial_dim, blank_index, "ctc_loss"
    )
    found = ops_ctc.ctc_loss(
        scores,
        lengths,
        labels,
        label_lengths,
        blank=blank_index,
        normalized=logits_normalized,
        label_loop=label_loop,
        viterbi=max_approx,
        impossible="zero",
    )
    return logits._new(found.reshape([dim.padded_size() for dim in batch]), batch, name="ctc_loss")


def ctc_best_path(
    *,
    logits: Tensor,
    logits_normalized: bool = False,
    targets: Tensor,
    input_spatial_dim: Dim,
    targets_spatial_dim: Dim,
    blank_index: int,
    label_loop: bool = True,
) -> Tensor:
    """The best alignment: the class of each frame, int32. Axes: time, then the batch axes."""
    batch, scores, lengths, labels, label_lengths = _problem(
        logits, targets, input_spatial_dim, targets_spatial_dim, blank_index, "ctc_best_path"
    )
    log_probs = scores if logits_normalized else scores.log_softmax(-1)
    path, _ = ops_ctc.ctc_best_path(log_probs, lengths, labels, label_lengths, blank=blank_index, label_loop=label_loop)
    raw = path.t().reshape(path.shape[1], *(dim.padded_size() for dim in batch))
    return logits._new(raw, (input_spatial_dim, *batch), sparse_dim=logits.feature_dim, name="ctc_best_path")


def _problem(
    logits: Tensor, targets: Tensor, time: Dim, label_time: Dim, blank: int, what: str
) -> tuple[Dims, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(batch axes, scores (B, T, V), lengths (B,), labels (B, N), their lengths (B,))."""
    classes = logits.feature_dim
    if classes is None:
        raise WrongUse(f"{what}: the logits {logits} must have a feature axis, which is that of the classes")
    if not 0 <= blank < classes.padded_size():
        raise WrongUse(f"{what}: `blank_index` must be a class of {classes}, but is {blank} instead")
    if not dtypes.is_integer(targets.dtype):
        raise WrongUse(f"{what}: the targets must be classes, but are {targets} instead")
    axis_of(logits.dims, time, f"{what}: the logits {logits}")
    axis_of(targets.dims, label_time, f"{what}: the targets {targets}")
    in_logits = tuple(dim for dim in logits.dims if dim not in (time, classes))
    batch = joined(in_logits, tuple(dim for dim in targets.dims if dim != label_time))
    sizes = [dim.padded_size() for dim in batch]
    scores = arranged(logits.raw_tensor, logits.dims, (*batch, time, classes)).expand(*sizes, -1, -1)
    labels = arranged(targets.raw_tensor, targets.dims, (*batch, label_time)).expand(*sizes, -1)
    lengths, label_lengths = (sizes_over(dim, batch).reshape(-1) for dim in (time, label_time))
    return batch, as_rows(scores, len(batch)), lengths, as_rows(labels, len(batch)), label_lengths
