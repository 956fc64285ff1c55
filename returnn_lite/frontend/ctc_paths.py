"""Paths of connectionist temporal classification: greedy decoding, and how long a path stays in each state."""

from __future__ import annotations

from collections.abc import Callable

import torch

import returnn_lite.ops.ctc as ops_ctc
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, as_rows, axis_of
from returnn_lite.frontend.sizes import sizes_over
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.ctc_decode import greedy_decode
from returnn_lite.ops.masked import frame_mask


def ctc_greedy_decode(
    logits: Tensor,
    *,
    in_spatial_dim: Dim,
    blank_index: int,
    out_spatial_dim: Dim | None = None,
    target_dim: Dim | None = None,
    wb_target_dim: Dim | None = None,
) -> tuple[Tensor, Dim]:
    """The best class of each frame without repetitions and blanks: (int32 labels, their axis).

    target_dim: the classes without the blank, which must be the one after them; by default with it.
    """
    classes = wb_target_dim if wb_target_dim is not None else logits.feature_dim
    if classes is None:
        raise WrongUse(f"ctc_greedy_decode of {logits}: `wb_target_dim` must be given, as no feature axis is set")
    if target_dim is not None and target_dim.dimension != blank_index:
        text = f"`target_dim` {target_dim.short_repr()} must have the size {blank_index} of `blank_index`"
        raise WrongUse(f"ctc_greedy_decode of {logits}: {text}")
    for dim in (in_spatial_dim, classes):
        axis_of(logits.dims, dim, f"ctc_greedy_decode: {logits}")
    batch = tuple(dim for dim in logits.dims if dim not in (in_spatial_dim, classes))
    scores = arranged(logits.raw_tensor, logits.dims, (*batch, in_spatial_dim, classes))
    lengths = sizes_over(in_spatial_dim, batch, scores.device)
    labels, counts = greedy_decode(as_rows(scores, len(batch)), lengths.reshape(-1), blank=blank_index)
    sizes = logits._new(counts.cpu().reshape(lengths.shape), batch, name="labels")
    out = out_spatial_dim if out_spatial_dim is not None else Dim(None, name="labels")
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = sizes
    raw = labels.reshape(*lengths.shape, labels.shape[-1])
    return logits._new(raw, (*batch, out), sparse_dim=classes if target_dim is None else target_dim), out


def ctc_durations_from_path(
    *,
    path: Tensor,
    path_spatial_dim: Dim,
    blank_index: int,
    targets_spatial_dim: Dim | None = None,
    out_spatial_dim: Dim | None = None,
    check_dims: bool = True,
    stop_on_failed_check: bool = True,
) -> tuple[Tensor, Dim]:
    """The frames of each state on a path, blank, label, blank … blank: (int32 durations, axis of size 2N + 1).

    A blank at the end of a sequence goes on as long as the blanks behind it do.
    """
    batch, labels, lengths = _path(path, path_spatial_dim, "ctc_durations_from_path")
    found = ops_ctc.ctc_durations(labels, _with_blanks_behind(labels == blank_index, lengths), blank=blank_index)
    used = (found[..., 1::2] > 0).sum(-1)
    return _over(path, batch, found, used, lambda labels: 2 * labels + 1, targets_spatial_dim, out_spatial_dim)


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
    """The blanks before each label and after the last, on a path where a label takes one frame: (int32, N + 1)."""
    batch, labels, lengths = _path(path, path_spatial_dim, "ctc_no_label_loop_blank_durations_from_path")
    found = ops_ctc.ctc_durations(labels, lengths, blank=blank_index, label_loop=False)
    used = found[..., 1::2].sum(-1).int()
    return _over(path, batch, found[..., ::2], used, lambda labels: labels + 1, targets_spatial_dim, out_spatial_dim)


def _path(path: Tensor, time: Dim, what: str) -> tuple[Dims, torch.Tensor, torch.Tensor]:
    """(batch axes, classes (…, T), lengths (…))."""
    axis_of(path.dims, time, f"{what}: {path}")
    batch = tuple(dim for dim in path.dims if dim != time)
    labels = arranged(path.raw_tensor, path.dims, (*batch, time))
    return batch, labels, sizes_over(time, batch, labels.device)


def _with_blanks_behind(blank: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The lengths, with the run of blanks that a last blank is the start of. Shape: (…, T) bool, (…) -> (…)"""
    if not blank.shape[-1]:
        return lengths
    last = blank.gather(-1, (lengths.long() - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    longer = (blank | frame_mask(lengths, blank.shape[-1])).cumprod(-1).sum(-1)
    return torch.where(last, torch.maximum(longer, lengths), lengths)


def _over(
    path: Tensor,
    batch: Dims,
    durations: torch.Tensor,
    labels: torch.Tensor,
    size_of: Callable[[Dim], Dim],
    targets: Dim | None,
    out: Dim | None,
) -> tuple[Tensor, Dim]:
    """The durations over their axis: `size_of` the labels' axis, or of their numbers (…), where it is not given."""
    axis = _axis(path, batch, labels, size_of, targets, out)
    lacking = axis.padded_size() - durations.shape[-1]
    return path._new(torch.nn.functional.pad(durations, (0, lacking)), (*batch, axis), name="durations"), axis


def _axis(
    path: Tensor, batch: Dims, labels: torch.Tensor, size_of: Callable[[Dim], Dim], targets: Dim | None, out: Dim | None
) -> Dim:
    if targets is not None:
        found = size_of(targets)
        if out is not None:
            out.declare_same_as(found)
        return found if out is None else out
    found = size_of(Dim(path._new(labels.cpu(), batch), name="labels"))
    if out is None:
        return found
    if not out.is_dim_known_in_batch():
        out.dyn_size_ext = found.dyn_size_ext
    return out
