"""Cross-entropy per frame, natural logarithm, in its variants.

Shapes: V classes on the last axis of logits, log probabilities and dense targets; classes are ints.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

IGNORED = -100
SMALLEST = 1e-20
_HIDDEN = -1e30


def pick(values: Tensor, classes: Tensor, axis: int = -1) -> Tensor:
    """The entry of each frame's class.  Shape: (…, V, …), V at `axis`, (…) -> (…)"""
    return values.gather(axis, classes.to(torch.int64).unsqueeze(axis)).squeeze(axis)


def summed_cross_entropy(logits: Tensor, classes: Tensor, valid: Tensor | None = None) -> Tensor:
    """Sum of -log softmax(logits)[class] over valid frames, in one torch call.

    Shape: (…, V), (…), broadcastable (…) bool -> ()
    """
    classes = classes.to(torch.int64)
    if valid is not None:
        classes = classes.masked_fill(~valid, IGNORED)
    rows = logits.reshape(-1, logits.shape[-1])
    return F.cross_entropy(rows, classes.reshape(-1), ignore_index=IGNORED, reduction="sum")


def dense_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-sum t log softmax(logits); the gradient takes the target for a distribution: softmax(logits) - t.

    Shape: (…, V), (…, V) -> (…)
    """
    result: Tensor = _DenseTarget.apply(logits, target)  # type: ignore[no-untyped-call]
    return result


class _DenseTarget(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        log_probs = F.log_softmax(logits, -1)
        ctx.save_for_backward(log_probs, target)
        return -(target * log_probs).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, target = ctx.saved_tensors
        grad = grads[0].unsqueeze(-1)
        return grad * (log_probs.exp() - target), -grad * log_probs


def smoothed_cross_entropy(log_probs: Tensor, classes: Tensor, smoothing: float, *, gaussian: bool = False) -> Tensor:
    """-sum q log p, less the entropy of q, so that a perfect match gives 0.  Shape: (…, V), (…) -> (…)

    q of the class is 1 - e, of the others e / (V - 1), e = `smoothing`; `gaussian`: a normal density around the class
    with standard deviation 1 - e (the entropy is that of the other q).
    """
    size, e = log_probs.shape[-1], smoothing
    others = e / (size - 1)
    if gaussian:
        positions = torch.arange(size, device=log_probs.device, dtype=log_probs.dtype)
        z = (positions - classes.unsqueeze(-1)) / (1.0 - e)
        weights = torch.exp(-0.5 * z * z) / ((1.0 - e) * math.sqrt(2.0 * math.pi))
        value = -(weights * log_probs).sum(-1)
    else:
        value = -(1.0 - e - others) * pick(log_probs, classes) - others * log_probs.sum(-1)
    entropy = -((1.0 - e) * math.log(1.0 - e) + (size - 1) * others * math.log(others + 1e-20))
    return value - entropy


def share_cross_entropy(y: Tensor, classes: Tensor) -> Tensor:
    """-log(y[class] / sum y); the gradient of log y is y / sum y - onehot(class).  Shape: (…, V), (…) int64 -> (…)"""
    result: Tensor = _Share.apply(y, classes)  # type: ignore[no-untyped-call]
    return result


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, classes: Tensor) -> Tensor:
        share = y / y.sum(-1, keepdim=True)
        ctx.save_for_backward(y, share, classes)
        return -pick(share, classes).clamp(SMALLEST, 1.0 / SMALLEST).log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        y, share, classes = ctx.saved_tensors
        of_log = share - F.one_hot(classes, y.shape[-1]).to(y.dtype)
        return grads[0].unsqueeze(-1) * of_log / y.clamp(min=SMALLEST), None


def log_uniform_shares(size: int, device: torch.device) -> Tensor:
    """P(k) = log((k + 2) / (k + 1)) / log(V + 1): the more, the lower the class.  -> (V,)"""
    k = torch.arange(size, dtype=torch.float32, device=device)
    return torch.log1p(1.0 / (k + 1.0)) / math.log(size + 1.0)


def sampled_cross_entropy(
    logits: Tensor,
    classes: Tensor,
    shares: Tensor,
    count: int,
    *,
    hide_hits: bool = True,
    noise_contrastive: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cross-entropy over the class and `count` others, drawn once without repetition by their `shares`.

    Shape: (N, V), (N,) int64, (V,) -> (N,). The logits are corrected by the log of the expected counts (Jean et al.
    2015). `hide_hits`: a drawn class that is the frame's own does not count. `noise_contrastive`: binary decisions,
    class or noise, instead (Gutmann and Hyvärinen 2010).
    """
    sample = torch.multinomial(shares, min(count, logits.shape[-1]), generator=generator)
    expected = -torch.expm1(sample.shape[0] * torch.log1p(-shares))  # of each class among the draws
    right = logits.gather(-1, classes.unsqueeze(-1)) - expected[classes].log().unsqueeze(-1)
    others = logits[:, sample] - expected[sample].log()
    if hide_hits:
        others = others.masked_fill(sample == classes.unsqueeze(-1), _HIDDEN)
    if noise_contrastive:
        return F.softplus(-right).squeeze(-1) + F.softplus(others).sum(-1)
    together = torch.cat([right, others], -1)
    return torch.logsumexp(together, -1) - right.squeeze(-1)
