"""Candidate picking of a beam search. Knows scores only, no layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

MINUS_HUGE = -1e30


@dataclass
class Picked:
    """The K best continuations, all [B, K]: `labels` int32, the hypothesis each extends `source` int64, `scores`."""

    labels: torch.Tensor
    source: torch.Tensor
    scores: torch.Tensor


@dataclass
class Gold:
    """The reference's continuation: its `label` and the hypothesis it extends `source`, int64 [B]; its `scores` [B]."""

    label: torch.Tensor
    source: torch.Tensor
    scores: torch.Tensor


def let_end(
    log_probs: torch.Tensor,
    base: torch.Tensor,
    ended: torch.Tensor | None,
    tick: int,
    exponent: float | None,
    *,
    goes_on: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """New and former scores where some hypotheses have ended.  Shape: (B, K, V), (B, K), ended (B, K) bool -> the same

    An ended hypothesis has one continuation, label 0, at no cost; with length normalisation (an exponent) its score so
    far is multiplied by ((t + 1) / t) ^ exponent, so that score / (t + 1) stays what it was. `goes_on`: there may be
    ticks although all have ended, which leave the scores as they are.
    """
    if ended is None:
        return log_probs, base
    if exponent is not None and (tick > 0 or goes_on):
        scaled = ended & ~ended.all() if goes_on else ended
        base = torch.where(scaled, base * ((tick + 1) / max(tick, 1)) ** exponent, base)
    log_probs = log_probs.masked_fill(ended.unsqueeze(-1), MINUS_HUGE)
    log_probs[..., 0].masked_fill_(ended, 0.0)
    return log_probs, base


def combine(
    log_probs: torch.Tensor,
    base: torch.Tensor,
    *,
    prob_scale: float = 1.0,
    base_scale: float = 1.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of all continuations.  Shape: (B, K, V), base (B, K) -> (B, K, V)"""
    if prob_scale != 1.0:
        log_probs = log_probs * prob_scale
    if base_scale != 1.0:
        base = base * base_scale
    scores = log_probs + base.unsqueeze(-1)
    return scores if noise is None else scores + noise


def gumbel_noise(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """-log(-log u), u uniform: added to log probabilities, the best ones are a sample without repetition.

    Shape: that of `like` (Kool et al. 2019)
    """
    uniform = torch.rand(like.shape, generator=generator, device=like.device)
    return -torch.log(-torch.log(uniform.clamp(min=1e-20)))


def pick(scores: torch.Tensor, size: int, *, keep_beams: bool = False) -> Picked:
    """The best `size` continuations per sequence, best first.  Shape: (B, K, V) -> (B, size)

    Of equal ones the lower index comes first. `keep_beams`: every hypothesis keeps size / K successors. Fewer
    candidates than `size`: filled up with label 0, source 0, score -inf.
    """
    batch, beams, classes = scores.shape
    if keep_beams:
        return _pick_per_beam(scores, size // beams)
    flat = scores.reshape(batch, beams * classes)
    count = min(size, beams * classes)
    best, index = top(flat, count)
    labels, source = (index, torch.zeros_like(index)) if beams == 1 else (index % classes, index // classes)
    if count < size:
        fill = (0, size - count)
        best = torch.nn.functional.pad(best, fill, value=float("-inf"))
        labels, source = torch.nn.functional.pad(labels, fill), torch.nn.functional.pad(source, fill)
    return Picked(labels.to(torch.int32), source, best)


def _pick_per_beam(scores: torch.Tensor, each: int) -> Picked:
    batch, beams, _ = scores.shape
    best, labels = top(scores, each)
    source = torch.arange(beams, device=scores.device).unsqueeze(-1).expand(batch, beams, each)
    return Picked(labels.reshape(batch, -1).to(torch.int32), source.reshape(batch, -1), best.reshape(batch, -1))


def top(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest values along the last axis in falling order; of equal ones the lower index first."""
    if count == 1:
        largest, at = values.max(-1, keepdim=True)
        return largest, at
    if values.device.type != "cpu":
        return top_by_key(values, count)
    best, index = values.topk(count, dim=-1)
    ties = (values >= best[..., -1:]).sum() > best.numel()  # at the edge, where topk may choose any
    if bool(ties | (best[..., 1:] == best[..., :-1]).any()):
        return _top_by_sort(values, count)
    return best, index


def _top_by_sort(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = values.sort(dim=-1, descending=True, stable=True)
    return order.values[..., :count], order.indices[..., :count]


def top_by_key(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`top` without asking the device whether there are ties: no two keys are equal, topk has no choice.

    A key holds the bits of the number, as an int that orders like it, above the bits of the falling index.
    """
    if values.dtype == torch.float64:
        return _top_by_sort(values, count)
    bits = (values.detach().to(torch.float32) + 0.0).view(torch.int32)  # + 0.0: the bits of -0.0 are others
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    falling = torch.arange(values.shape[-1] - 1, -1, -1, device=values.device)
    index = ((rising << 32) | falling).topk(count, dim=-1).indices
    return values.gather(-1, index), index


def gold_of(scores: torch.Tensor, label: torch.Tensor, source: torch.Tensor) -> Gold:
    """The continuation of hypothesis `source` [B] by `label` [B], clipped to the classes.  Shape: (B, K, V) -> [B]"""
    label = label.to(torch.int64).clamp(0, scores.shape[-1] - 1)
    rows = torch.arange(scores.shape[0], device=scores.device)
    return Gold(label, source, scores[rows, source, label])


def without_gold(scores: torch.Tensor, gold: Gold) -> torch.Tensor:
    """The scores with -inf for the reference's continuation, so that it is not found a second time."""
    rows = torch.arange(scores.shape[0], device=scores.device)
    return scores.index_put((rows, gold.source, gold.label), scores.new_tensor(float("-inf")))


def put_gold(picked: Picked, gold: Gold) -> Picked:
    """The reference's continuation in place of the last of the picked ones."""

    def replaced(values: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return torch.cat([values[:, :-1], last.to(values.dtype).unsqueeze(1)], 1)

    return Picked(
        replaced(picked.labels, gold.label), replaced(picked.source, gold.source), replaced(picked.scores, gold.scores)
    )


@dataclass
class Combinations:
    """Candidates of several decisions at once: every combination of the best labels of each.

    `scores` (B, K, N): sums of log scores, the last decision running fastest; `labels[i]` (B, K, n_i).
    """

    scores: torch.Tensor
    labels: list[torch.Tensor]

    def split(self, picked: Picked) -> list[torch.Tensor]:
        """The labels of each decision, int32 [B, K'], of picked combinations."""
        counts = [found.shape[-1] for found in self.labels]
        rows = torch.arange(self.scores.shape[0], device=self.scores.device).unsqueeze(-1)
        index, found = picked.labels.to(torch.int64), []
        for i, labels in enumerate(self.labels):
            own = index // math.prod(counts[i + 1 :]) % counts[i]
            found.append(labels[rows, picked.source, own].to(torch.int32))
        return found


def combinations(log_probs: Sequence[torch.Tensor], sizes: Sequence[int]) -> Combinations:
    """Cuts each (B, K, V_i) to its `sizes[i]` best labels and sums all combinations."""
    total: torch.Tensor | None = None
    labels = []
    for scores, size in zip(log_probs, sizes, strict=True):
        best, index = top(scores, min(size, scores.shape[-1]))
        labels.append(index)
        total = best if total is None else (total.unsqueeze(-1) + best.unsqueeze(-2)).flatten(-2)
    if total is None:
        raise ValueError("a choice needs a source")
    return Combinations(total, labels)
