"""`bleu`: how well a search result matches the target, as an error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import LossSum, SequenceLoss, loss
from returnn_lite.losses.sequence import labels_of
from returnn_lite.tensor import Tensor

LONGEST = 4  # labels
SMALLEST_RATIO = 1e-30


def sentence_bleu(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Smoothed BLEU of one sequence (Papineni et al. 2002, smoothing 3 of Chen and Cherry 2014), between 0 and 1.

    Geometric mean of the clipped precisions m / c of n-grams, n = 1..4, times exp(1 - wanted / found) for a short
    `found`. With m = 0 the precision is 1 / (2 c), 1 / (4 c), … ; without n-grams it is left out of the product.
    """
    log_sum, smoothing = 0.0, 1.0
    for n in range(1, LONGEST + 1):
        matches, count = _matches(found, wanted, n)
        if count == 0:
            continue
        if matches == 0:
            smoothing *= 2.0
        log_sum += math.log(matches / count if matches else 1.0 / (smoothing * count))
    ratio = len(found) / len(wanted) if wanted else math.inf
    if ratio < SMALLEST_RATIO:
        return 0.0
    brevity = math.exp(1.0 - 1.0 / ratio) if ratio < 1.0 else 1.0
    return math.exp(log_sum / LONGEST) * brevity


def _matches(found: Sequence[int], wanted: Sequence[int], n: int) -> tuple[int, int]:
    """(n-grams of `found` that are in `wanted`, each at most as often as there; n-grams of `found`)."""
    grams = [Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (found, wanted)]
    return sum((grams[0] & grams[1]).values()), sum(grams[0].values())


@loss("bleu")
class Bleu(SequenceLoss):
    """Only an error: minus the smoothed sentence BLEU of the (sparse) output, summed over sequences."""

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Minus the BLEU."""
        if target is None:
            raise ConfigError("loss", "`bleu` needs a target")
        pairs = zip(_lists(output), _lists(target), strict=True)
        scores = [-sentence_bleu(found, wanted) for found, wanted in pairs]
        return LossSum(None, torch.tensor(scores, dtype=torch.float32, device=output.data.device))


def _lists(x: Tensor) -> list[list[int]]:
    labels, lengths = labels_of(x)
    return [row[:n] for row, n in zip(labels.tolist(), lengths.tolist(), strict=True)]
