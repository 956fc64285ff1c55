"""Soft alignment of frames to states 0, 1, …, S - 1 that are passed in this order."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.ctc import NEVER
from returnn_lite.ops.masked import frame_mask


def staircase_posteriors(
    log_probs: Tensor, lengths: Tensor, states: Tensor, *, am_scale: float = 1.0, min_prob: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Share of each state in each frame, and -log of the total score.  Shape: (B, T, V), (B,), (B,) -> (B, T, V), (B,)

    The first frame is in state 0, the last one in state `states` - 1; each other one in the state before it or in the
    next one. State s scores as class s. Both results are 0 where there is no way; no gradient flows through.
    """
    scores = log_probs.detach()
    if min_prob > 0:
        scores = scores.clamp(min=math.log(min_prob))
    scores = scores * am_scale
    mask = frame_mask(lengths.to(scores.device), scores.shape[1])
    with torch.enable_grad():
        total = _total(scores.requires_grad_(), mask, states.to(scores.device, torch.int64))
        # A posterior is the derivative of the total score by the score of its class.
        (shares,) = torch.autograd.grad(total.sum(), scores)
    total = total.detach()
    possible = total > NEVER / 2
    return shares * possible[:, None, None], torch.where(possible, -total, 0.0)


def _total(scores: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    """Log of the summed score of all ways.  Shape: (B, T, V) -> (B,)"""
    alpha = torch.full_like(scores[:, 0], NEVER)
    for frame in range(scores.shape[1]):
        entered = F.pad(alpha[:, :-1], (1, 0), value=0.0 if frame == 0 else NEVER)
        moved = torch.logaddexp(alpha, entered) + scores[:, frame]
        alpha = torch.where(mask[:, frame, None], moved, alpha)
    last = alpha.gather(1, (states - 1).clamp(0, scores.shape[2] - 1).unsqueeze(1)).squeeze(1)
    return torch.where((states >= 1) & (states <= scores.shape[2]), last, NEVER)
