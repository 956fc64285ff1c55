"""CTC: the sum over all alignments of a label sequence, the best one, and the posteriors, a whole batch at a time.

A label sequence l_1 … l_N has the states blank, l_1, blank, l_2, …, l_N, blank. Each frame stays in a state or enters
a later one: the next, or the next label if that differs from the present one. With `label_loop` False each label takes
one frame (RNA): no staying in labels, and the next label may be equal.

Shapes: B sequences, T frames, V classes with the blank, N labels. All logarithms are natural.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.gradients import with_gradient
from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.masked import frame_mask, pack

NEVER = -1e30  # log probability of what cannot be; finite, so that gradients are


def ctc_loss(
    scores: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = -1,
    normalized: bool = True,
    label_loop: bool = True,
    viterbi: bool = False,
    softmax_grad: bool = True,
    impossible: str = "inf",
) -> Tensor:
    """-log of the summed probability of all alignments. Shape: (B, T, V), (B,), (B, N), (B,) -> (B,)

    `scores` are log probabilities if `normalized`, else logits. `viterbi`: only the best alignment counts.
    `softmax_grad`: the gradient with respect to `scores` is exp(log p) - posterior, as if they came out of a
    log_softmax that was never there; else it is the true one of the log probabilities, -posterior.
    `impossible` sequences (more labels than the frames can hold): "inf", "zero_loss" (loss 0, but the gradient of a
    posterior of 0) or "zero" (loss and gradient 0).
    """
    scores = _with_a_frame(scores)
    log_probs = scores if normalized else scores.log_softmax(-1)
    goal = log_probs if normalized or not softmax_grad else scores  # what the gradient is the gradient of
    log_probs = log_probs.detach()
    if log_probs.dtype in (torch.float16, torch.bfloat16):
        log_probs = log_probs.float()
    problem = _Problem.of(log_probs, lengths, targets, target_lengths, blank, label_loop)
    with_grad = torch.is_grad_enabled() and scores.requires_grad
    grad = None
    if label_loop and not viterbi and (softmax_grad or not with_grad):
        loss, grad = _library_gradient(log_probs, problem) if with_grad else (_library_loss(log_probs, problem), None)
    elif with_grad:
        loss, posteriors = _align(log_probs, problem, viterbi)
        grad = (log_probs.exp() * problem.mask[:, :, None] if softmax_grad else 0) - posteriors
    else:
        loss = -_no_path_to_minus_inf(_total_score(*_emissions(log_probs, problem), problem, viterbi))
    if impossible != "inf":
        possible = loss.isfinite()
        loss = torch.where(possible, loss, 0.0)
        if impossible == "zero" and grad is not None:
            grad = torch.where(possible[:, None, None], grad, 0.0)
    return loss if grad is None else with_gradient(goal, loss, grad.to(scores.dtype))


def ctc_posteriors(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = -1,
    label_loop: bool = True,
    am_scale: float = 1.0,
    min_prob: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Soft alignment. Shape: (B, T, V), (B,), (B, N), (B,) -> (B, T, V), (B,)

    The first result sums to 1 over V in the frames of a sequence, and is 0 behind its end and where there is no
    alignment. The second is -log of the total score, 0 without an alignment. No gradient flows through.
    Scores (any, not only normalised ones) are raised to log min_prob, then multiplied by am_scale.
    """
    scores = log_probs.detach()
    if min_prob > 0:
        scores = scores.clamp(min=math.log(min_prob))
    problem = _Problem.of(scores, lengths, targets, target_lengths, blank, label_loop)
    loss, posteriors = _align(scores * am_scale, problem, viterbi=False)
    return posteriors, torch.where(loss.isfinite(), loss, 0.0)


def ctc_best_path(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = -1,
    label_loop: bool = True,
) -> tuple[Tensor, Tensor]:
    """The best alignment. Shape: (B, T, V), (B,), (B, N), (B,) -> (B, T) int32, (B,)

    A label or the blank per frame (0 after the end, and everywhere if there is no alignment), and its log score
    (-inf without).
    """
    scores = _with_a_frame(log_probs.detach())
    problem = _Problem.of(scores, lengths, targets, target_lengths, blank, label_loop)
    loss, best = _align(scores, problem, viterbi=True)
    return best.argmax(-1)[:, : log_probs.shape[1]].to(torch.int32), -loss


def ctc_durations(
    path: Tensor, lengths: Tensor, *, blank: int, label_loop: bool = True, labels: int | None = None
) -> Tensor:
    """How many frames a path is in each of its states: blank, label, blank, …  Shape: (…, T), (…) -> (…, 2 N + 1)

    N: the number of labels of the longest path; a device is waited for to learn it, unless `labels` says it.
    """
    is_label = path != blank
    entered = is_label.clone()
    if label_loop:
        entered[..., 1:] &= path[..., 1:] != path[..., :-1]
    valid = frame_mask(lengths.to(path.device), path.shape[-1])
    number = (entered & valid).cumsum(-1)
    if labels is None:
        labels = int(number.max()) if number.numel() else 0
    durations = torch.zeros(*path.shape[:-1], 2 * labels + 1, dtype=torch.int32, device=path.device)
    return durations.scatter_add_(-1, 2 * number - (is_label & valid).long(), valid.to(torch.int32))


def _with_a_frame(scores: Tensor) -> Tensor:
    """At least one frame, which may be padding: PyTorch's own CTC wants it. Shape: (B, T, V) -> (B, max(T, 1), V)"""
    return scores if scores.shape[1] else F.pad(scores, (0, 0, 0, 1))


class _Problem(NamedTuple):
    """What is to be aligned. Lengths and targets are int64, on the device of the scores."""

    lengths: Tensor  # (B,)
    targets: Tensor  # (B, N)
    target_lengths: Tensor  # (B,)
    blank: int
    label_loop: bool
    mask: Tensor  # (B, T), True = valid

    @classmethod
    def of(
        cls, scores: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int, label_loop: bool
    ) -> _Problem:
        lengths, targets, target_lengths = (
            x.to(scores.device, torch.int64) for x in (lengths, targets, target_lengths)
        )
        mask = frame_mask(lengths, scores.shape[1])
        return cls(lengths, targets, target_lengths, blank % scores.shape[2], label_loop, mask)


def _library_loss(log_probs: Tensor, problem: _Problem) -> Tensor:
    """PyTorch's own CTC; inf if impossible."""
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        problem.targets,
        problem.lengths,
        problem.target_lengths,
        blank=problem.blank,
        reduction="none",
    )


def _library_gradient(log_probs: Tensor, problem: _Problem) -> tuple[Tensor, Tensor]:
    """PyTorch's own CTC: loss and exp(log p) - posterior."""
    with torch.enable_grad():
        log_probs = log_probs.detach().requires_grad_()
        loss = _library_loss(log_probs, problem)
        possible = loss.detach().isfinite()
        total = torch.dot(loss, possible.to(loss.dtype))  # a scalar: for other outputs autograd imports sympy (0.3 s)
    (grad,) = torch.autograd.grad(total, log_probs)
    if on_gpu(possible) or not possible.all():
        without_path = log_probs.detach().exp() * problem.mask[:, :, None]
        grad = torch.where(possible[:, None, None], grad, without_path)
    return loss.detach(), grad


def _align(log_probs: Tensor, problem: _Problem, viterbi: bool) -> tuple[Tensor, Tensor]:
    """-log of the sum over the alignments (or of the best one), and the share of each class in each frame.

    Shape: (B, T, V) -> (B,), (B, T, V). Impossible sequences: inf and 0.
    """
    if problem.label_loop and not viterbi:
        return _library_align(log_probs, problem)
    # A posterior is the derivative of the total score by the score of its class: one recursion gives all.
    emissions, states = _emissions(log_probs, problem)
    with torch.enable_grad():
        total = _total_score(emissions.requires_grad_(), states, problem, viterbi)
        (shares,) = torch.autograd.grad(total.sum(), emissions)
    total = _no_path_to_minus_inf(total.detach())
    shares = shares * total.isfinite()[:, None, None]
    index = states[:, None, :].expand_as(shares)
    return -total, torch.zeros_like(log_probs).scatter_add_(2, index, shares)


def _library_align(log_probs: Tensor, problem: _Problem) -> tuple[Tensor, Tensor]:
    """The same out of PyTorch's CTC, whose gradient is exp(score) - posterior."""
    # Moved to a maximum of 0 per frame, scores of any size leave the difference exact.
    shift = log_probs.amax(-1, keepdim=True).clamp(min=NEVER)
    log_probs = log_probs - shift
    loss, grad = _library_gradient(log_probs, problem)
    counted = problem.mask[:, :, None] & loss.isfinite()[:, None, None]
    posteriors = torch.where(counted, log_probs.detach().exp() - grad, 0.0)
    return loss - (shift[:, :, 0] * problem.mask).sum(1), posteriors


def _no_path_to_minus_inf(total: Tensor) -> Tensor:
    return torch.where(total > NEVER / 2, total, -math.inf)


def _emissions(log_probs: Tensor, problem: _Problem) -> tuple[Tensor, Tensor]:
    """The score of each state in each frame, and the states' classes. Shape: (B, T, V) -> (B, T, S), (B, S)"""
    states = _states(problem)
    return log_probs.gather(2, states[:, None, :].expand(-1, log_probs.shape[1], -1)), states


def _states(problem: _Problem) -> Tensor:
    """The class of each state: blank, label, blank, … Shape: (B, N) -> (B, 2N + 1)"""
    targets = problem.targets
    states = targets.new_full((targets.shape[0], 2 * targets.shape[1] + 1), problem.blank)
    states[:, 1::2] = targets
    return states


def _total_score(emissions: Tensor, states: Tensor, problem: _Problem, viterbi: bool) -> Tensor:
    """Log of the summed (or the best) score of all ways through the states. Shape: (B, T, S) -> (B,)"""
    batch, frames, size = emissions.shape
    no_loop = emissions.new_zeros(batch, size)
    no_skip = emissions.new_zeros(batch, size)
    no_skip[:, 0::2] = NEVER  # blanks are not skipped to
    if problem.label_loop:
        no_skip[:, 3::2][states[:, 3::2] == states[:, 1:-2:2]] = NEVER
    else:
        no_loop[:, 1::2] = NEVER
    alpha = torch.full_like(no_loop, NEVER)
    alpha[:, 0] = 0.0  # before the first frame we are in the first blank
    for frame in range(frames):
        from_before = F.pad(alpha, (2, 0), value=NEVER)
        ways = torch.stack([alpha + no_loop, from_before[:, 1:-1], from_before[:, :-2] + no_skip])
        entered = ways.max(0).values if viterbi else ways.logsumexp(0)
        alpha = torch.where(problem.mask[:, frame, None], entered + emissions[:, frame], alpha)
    last = 2 * problem.target_lengths[:, None]
    in_blank = alpha.gather(1, last)
    in_label = torch.where(last > 0, alpha.gather(1, (last - 1).clamp(min=0)), NEVER)
    ends = torch.cat([in_blank, in_label], 1)
    return ends.max(1).values if viterbi else ends.logsumexp(1)


# --- preparing targets ------------------------------------------------------------------------------------------------


def collapse_repeated(targets: Tensor, target_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Merges equal neighbours. Shape: (B, N), (B,) -> (B, N'), (B,)"""
    valid = frame_mask(target_lengths.to(targets.device), targets.shape[1])
    starts = torch.ones_like(valid)
    starts[:, 1:] = targets[:, 1:] != targets[:, :-1]
    return pack(targets, valid & starts)
