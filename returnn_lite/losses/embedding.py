"""Losses on distances of vectors: `triplet_loss`, `deep_clustering`."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import Loss, LossSum, SequenceLoss, loss
from returnn_lite.ops.embeddings import affinity_distance, cosine_hinge_loss
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.masked import fill_padding

BLOCKS = 3  # anchor, same, different


@loss("triplet_loss")
class TripletLoss(Loss):
    """Hinge loss on cosine distances d = 1 - cos of anchor, same and different vectors.  Shape: (B, 3 F), target (B, 3)

    Over all pairs i, j of the 3 B vectors: 0.5 d where label_i^2 = label_i label_j, else 0.5 max(`margin` - d, 0).
    `multi_view_training`: two views, (B, 6 F), whose losses are added. The norm factor is 1 / (9 B) per view.
    """

    compares_frames = False

    def __init__(self, *, margin: float, multi_view_training: bool = False) -> None:
        self.margin = margin
        self.views = 2 if multi_view_training else 1

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Sum over all pairs."""
        size = output.spec.dim or 0
        if output.spec.rank != 2 or size % (BLOCKS * self.views):
            text = f"`triplet_loss` needs (B, F) with {BLOCKS * self.views} blocks of features, but gets {output.spec}"
            raise ConfigError("loss", text)
        if target is None or target.shape != (output.shape[0], BLOCKS):
            found = None if target is None else target.spec
            raise ConfigError(
                "loss", f"`triplet_loss` needs a target of {BLOCKS} labels per sequence, but gets {found}"
            )
        labels = target.data.t().reshape(-1).to(output.data.dtype)
        total = sum((self._view(part, labels) for part in output.data.chunk(self.views, -1)), output.data.new_zeros(()))
        return LossSum(total, None)

    def _view(self, vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, 3 F), labels (3 B,) -> ()"""
        rows = torch.cat(vectors.chunk(BLOCKS, -1), 0)
        return cosine_hinge_loss(rows, labels, self.margin)

    def inverse_norm(self, output: Tensor, target: Tensor | None) -> torch.Tensor:
        """Number of pairs divided by the batch size."""
        return output.data.new_tensor(float(BLOCKS * BLOCKS * self.views * output.shape[0]))


@loss("deep_clustering")
class DeepClustering(SequenceLoss):
    """||V'V||^2 - 2 ||V'Y||^2 + ||Y'Y||^2 per sequence (Hershey et al. 2016).

    The rows of V are the output's features in pieces of `embedding_dimension`, those of Y the target's in pieces of
    `nr_of_sources`; frames after the sequence end count as 0.
    """

    recurrent = False
    compares_frames = False

    def __init__(self, *, embedding_dimension: PositiveInt, nr_of_sources: PositiveInt) -> None:
        self.embedding_dimension = embedding_dimension
        self.nr_of_sources = nr_of_sources

    def per_sequence(self, output: Tensor, target: Tensor | None) -> LossSum:
        """One value per sequence."""
        if target is None or target.spec.sparse:
            raise ConfigError("loss", "`deep_clustering` needs a dense target")
        v = self._rows(output, self.embedding_dimension, "embedding_dimension")
        y = self._rows(target, self.nr_of_sources, "nr_of_sources").to(v.dtype)
        if v.shape[:2] != y.shape[:2]:
            raise ConfigError(
                "loss", f"`deep_clustering` needs as many embeddings as targets, but has {v.shape[1]} and {y.shape[1]}"
            )
        return LossSum(affinity_distance(v, y), None)

    @staticmethod
    def _rows(x: Tensor, size: int, option: str) -> torch.Tensor:
        """(B, T, n * size) -> (B, T * n, size)"""
        x = x.batch_major()
        if (x.spec.dim or 0) % size:
            raise ConfigError(
                "loss_opts", f"`{option}` must divide the number of features {x.spec.dim}, but is {size} instead"
            )
        rows: torch.Tensor = fill_padding(x, 0.0).flatten(1).unflatten(1, (-1, size))
        return rows
