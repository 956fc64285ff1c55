"""BLEU of single label sequences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

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
