"""The hypotheses of a search as arrays: all of a beam, or the best one of each sequence."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from returnn_lite.rec.decide import first_largest
from returnn_lite.tensor import Tensor

Hypotheses: TypeAlias = list[tuple[float, np.ndarray]]  # (score, array), …, best first
Raw: TypeAlias = np.ndarray | Hypotheses  # of a sequence, without padding


def hypotheses(output: Tensor, num_seqs: int) -> Sequence[Raw]:
    """Per sequence its array without padding, or for a beam [(score, array), …], best first."""
    arrays = unpadded(output)
    if output.beam is None or output.beam.decided:
        return arrays
    size = output.beam.size
    scores = output.beam.scores.detach().cpu().numpy()
    return [[(float32_number(scores[b, k]), arrays[b * size + k]) for k in range(size)] for b in range(num_seqs)]


def unpadded(output: Tensor) -> list[np.ndarray]:
    """The batch entries of a batch-major output, each cut to its lengths on all dynamic axes."""
    array = output.data.detach().cpu().numpy()
    cuts = []
    for axis, dim in enumerate(output.spec.dims):
        if axis > 0 and dim.dynamic:
            cuts.append((axis - 1, output.length(dim).values.cpu().numpy()))
    rows = []
    for b in range(len(array)):
        index = [slice(None)] * (array.ndim - 1)
        for axis, lengths in cuts:
            index[axis] = slice(int(lengths[b]))
        rows.append(array[b][tuple(index)])
    return rows


def float32_number(value: float | np.floating) -> float:
    """A float32 as the Python number with the fewest digits that tell it apart."""
    return float(str(np.float32(value)))


def best_hypothesis(output: Tensor, decision: Tensor) -> Tensor:
    """The part of an output that belongs to the best hypothesis of each sequence.  Shape: (B * beam, …) -> (B, …)

    The best one is that which `decision` chose, if it was decided from the same beam; else that with the largest score.
    """
    beam, decided = output.beam, decision.beam
    if beam is None or beam.decided:
        return output
    if decided is not None and decided.decided and decided.parent is beam:
        return output.gather_batch(decided.source, None)
    best = first_largest(beam.scores)  # (B,)
    return output.gather_batch(torch.arange(len(best), device=best.device) * beam.size + best, None)
