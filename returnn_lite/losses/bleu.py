"""`bleu`: how well a search result matches the target, as an error."""

from __future__ import annotations

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import LossSum, SequenceLoss, loss
from returnn_lite.losses.sequence import labels_of
from returnn_lite.ops.bleu import sentence_bleu
from returnn_lite.tensor import Tensor


@loss("bleu")
class Bleu(SequenceLoss):
    """Only an error: minus the smoothed sentence BLEU of the (sparse) output, summed over sequences."""

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Minus the BLEU."""
        if target is None:
            raise ConfigError("loss", "`bleu` needs a target")
        pairs = zip(_lists(output), _lists(target), strict=True)
        scores = [-sentence_bleu(found, wanted) for found, wanted in pairs]
        return LossSum(None, torch.tensor(scores, dtype=torch.float32, device=output.device))


def _lists(x: Tensor) -> list[list[int]]:
    labels, lengths = labels_of(x)
    return [row[:n] for row, n in zip(labels.tolist(), lengths.tolist(), strict=True)]
