"""Candidate picking of a beam search. Knows scores only, no layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

MINUS_HUGE = -1e30


@dataclass
class Picked:
    """The K best continuations: `labels` int32 [B, K], the hypothesis each extends `source` int64 [B, K], `scores` [B, K]."""

    labels: torch.Tensor
    source: torch.Tensor
    scores: torch.Tensor


def combine_scores(
    log_probs: torch.Tensor,
    base: torch.Tensor,
    ended: torch.Tensor | None,
    tick: int,
    *,
    prob_scale: float = 1.0,
    base_scale: float = 1.0,
    length_normalization_exponent: float | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of all continuations.  Shape: (B, K, V), base (B, K), ended (B, K) bool -> (B, K, V)

    An ended hypothesis has one continuation, label 0, at no cost; with length normalisation (an exponent) its score so
    far is multiplied by ((t + 1) / t) ^ exponent, so that score / (t + 1) stays what it was.
    """
    if ended is not None:
        if length_normalization_exponent is not None and tick > 0:
            factor = ((tick + 1) / tick) ** length_normalization_exponent
            base = torch.where(ended, base * factor, base)
        only_first = torch.full_like(log_probs[0, 0], MINUS_HUGE)
        only_first[0] = 0.0
        log_probs = torch.where(ended.unsqueeze(-1), only_first, log_probs)
    if prob_scale != 1.0:
        log_probs = log_probs * prob_scale
    if base_scale != 1.0:
        base = base * base_scale
    scores = log_probs + base.unsqueeze(-1)
    return scores if noise is None else scores + noise


def pick(scores: torch.Tensor, size: int, *, keep_beams: bool = False) -> Picked:
    """The best `size` continuations per sequence, best first; of equal ones the lower index first.  Shape: (B, K, V) -> [B, size]

    `keep_beams`: every hypothesis keeps size / K successors. Fewer candidates than `size`: filled up with label 0,
    source 0, score -inf.
    """
    batch, beams, classes = scores.shape
    if keep_beams:
        return _pick_per_beam(scores, size // beams)
    flat = scores.reshape(batch, beams * classes)
    count = min(size, beams * classes)
    best, index = _top(flat, count)
    labels, source = index % classes, index // classes
    if count < size:
        fill = (0, size - count)
        best = torch.nn.functional.pad(best, fill, value=float("-inf"))
        labels, source = torch.nn.functional.pad(labels, fill), torch.nn.functional.pad(source, fill)
    return Picked(labels.to(torch.int32), source, best)


def _pick_per_beam(scores: torch.Tensor, each: int) -> Picked:
    batch, beams, _ = scores.shape
    best, labels = _top(scores, each)
    source = torch.arange(beams, device=scores.device).unsqueeze(-1).expand(batch, beams, each)
    return Picked(labels.reshape(batch, -1).to(torch.int32), source.reshape(batch, -1), best.reshape(batch, -1))


def _top(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest values along the last axis in falling order; of equal ones the lower index first."""
    best, index = values.topk(count, dim=-1)
    if count > 1 and bool((best[..., 1:] == best[..., :-1]).any()) or bool((values == best[..., -1:]).sum() > best[..., -1].numel()):
        order = values.sort(dim=-1, descending=True, stable=True)
        return order.values[..., :count], order.indices[..., :count]
    return best, index
