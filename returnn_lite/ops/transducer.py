"""The loss of transducers: all alignments of labels to frames, summed (Graves 2012)."""

from __future__ import annotations

import torch
from torch import Tensor


def transducer_loss(
    log_probs: Tensor,
    labels: Tensor,
    input_lengths: Tensor,
    label_lengths: Tensor,
    *,
    blank: int,
    labels_take_frames: bool = False,
) -> Tensor:
    """-log of the summed probability of all alignments.

    Shape: log_probs (B, T, U + 1, V), labels (B, U), lengths (B,) -> (B,)

    A blank goes to the next frame. A label stays in its frame (Graves 2012, "Sequence transduction with recurrent
    neural networks"), or with `labels_take_frames` goes to the next one, too (Sak et al. 2017, "Recurrent neural
    aligner"; Tripathi et al. 2019, "Monotonic recurrent neural network transducer"): then a sequence with more labels
    than frames has no alignment, and its loss is infinite.
    """
    device = log_probs.device
    index = labels.to(device, torch.int64)[:, None, :, None].expand(-1, log_probs.shape[1], -1, 1)
    label = log_probs[:, :, :-1].gather(-1, index)[..., 0]  # (B, T, U)
    total = _by_frames if labels_take_frames else _within_frames
    rows = total(log_probs[..., blank], label)  # (B, T + 1, U + 1)
    at = torch.arange(len(log_probs), device=device)
    return -rows[at, input_lengths.to(device, torch.int64), label_lengths.to(device, torch.int64)]


def _by_frames(blank: Tensor, label: Tensor) -> Tensor:
    """Log sums of all ways to have read t frames and said u labels, a frame for each blank and label.

    Shape: (B, T, U + 1), (B, T, U) -> (B, T + 1, U + 1)
    """
    never = float("-inf")
    label = torch.nn.functional.pad(label, (1, 0), value=never)
    row = torch.full_like(blank[:, 0], never)
    row[:, 0] = 0.0
    rows = [row]
    for said_nothing, said_one in zip(blank.unbind(1), label.unbind(1), strict=True):
        stayed, moved = row + said_nothing, row.roll(1, dims=1) + said_one
        row = _log_add(stayed, moved)
        rows.append(row)
    return torch.stack(rows, dim=1)


def _within_frames(blank: Tensor, label: Tensor) -> Tensor:
    """The same where a label stays in its frame, and each frame ends with a blank.

    Of a frame entered with row a, the ways to be at u labels are C_u + log sum_{v <= u} exp(a_v - C_v), where C_u is
    what the first u labels score in this frame.
    """
    said = torch.nn.functional.pad(label.cumsum(-1), (1, 0))  # (B, T, U + 1)
    row = torch.full_like(blank[:, 0], -1e30)  # finite, since -inf has no gradient in logcumsumexp
    row[:, 0] = 0.0
    rows = [row]
    for ended, scored in zip(blank.unbind(1), said.unbind(1), strict=True):
        row = scored + (row - scored).logcumsumexp(-1) + ended
        rows.append(row)
    return torch.stack(rows, dim=1)


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), with gradients 0 where both are -inf."""
    impossible = torch.isneginf(a) & torch.isneginf(b)
    return torch.logaddexp(a.masked_fill(impossible, 0.0), b.masked_fill(impossible, 0.0)).masked_fill(
        impossible, float("-inf")
    )
