"""Connectionist temporal classification (Graves et al., 2006): loss, best alignment, durations without a loop."""

from __future__ import annotations

from typing import Any

import torch

import returnn_lite.ops.ctc as ops_ctc
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.dim_sizes import as_torch
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of, joined
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
    return logits._new(_with_axes(found, batch), batch, name="ctc_loss")


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
    axis_of(logits.dims, time, f"{what}: the logits {logits}")
    axis_of(targets.dims, label_time, f"{what}: the targets {targets}")
    in_logits = tuple(dim for dim in logits.dims if dim not in (time, classes))
    batch = joined(in_logits, tuple(dim for dim in targets.dims if dim != label_time))
    sizes = [dim.padded_size() for dim in batch]
    scores = arranged(logits.raw_tensor, logits.dims, (*batch, time, classes)).expand(*sizes, -1, -1)
    labels = arranged(targets.raw_tensor, targets.dims, (*batch, label_time)).expand(*sizes, -1)
    lengths, label_lengths = (_lengths(dim, batch, sizes) for dim in (time, label_time))
    return batch, scores.reshape(-1, *scores.shape[-2:]), lengths, labels.reshape(-1, labels.shape[-1]), label_lengths


def _lengths(dim: Dim, batch: Dims, sizes: list[int]) -> torch.Tensor:
    found = dim.get_size_tensor()
    raw: torch.Tensor = arranged(as_torch(found), found.dims, batch).expand(sizes)
    return raw.reshape(-1)


def _with_axes(raw: torch.Tensor, batch: Dims) -> torch.Tensor:
    return raw.reshape([dim.padded_size() for dim in batch])


def ctc_no_label_loop_blank_durations_from_path(
    *,
    path: Tensor,
    path_spatial_dim: Dim,
    blank_index: int,
    targets_spatial_dim: Dim | None = None,
    out_spatial_dim: Dim | None = None,
    check_dims: bool = True,
    stop_on_failed_check: bool = True,
) -> tuple[Tensor, Dim]:
    """The blanks before each label and behind the last, on a path where a label takes one frame: (int32, N + 1)."""
    batch = tuple(dim for dim in path.dims if dim != path_spatial_dim)
    sizes = [dim.padded_size() for dim in batch]
    labels = arranged(path.raw_tensor, path.dims, (*batch, path_spatial_dim))
    lengths = _lengths(path_spatial_dim, batch, sizes).reshape(sizes)
    states = ops_ctc.ctc_durations(labels, lengths, blank=blank_index, label_loop=False)
    counts = (labels != blank_index) & (
        torch.arange(labels.shape[-1], device=labels.device) < lengths.to(labels.device).unsqueeze(-1)
    )
    out = _label_axis(counts.sum(-1), batch, path, targets_spatial_dim, out_spatial_dim)
    size = out.padded_size()
    raw = torch.nn.functional.pad(states[..., ::2], (0, max(size - states.shape[-1] // 2 - 1, 0)))[..., :size]
    return path._new(raw, (*batch, out), name="durations"), out


def _label_axis(counts: torch.Tensor, batch: Dims, path: Tensor, targets: Dim | None, out: Dim | None) -> Dim:
    """The axis of N + 1 entries."""
    if targets is not None:
        found: Any = targets + 1
        if out is not None:
            out.declare_same_as(found)
        return found if out is None else out
    sizes = path._new((counts + 1).to(torch.int32).cpu(), batch, name="durations")
    if out is None:
        return Dim(sizes, name="durations")
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = sizes
    return out
