"""What a step needs of a mini-batch."""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch

Padded: TypeAlias = torch.Tensor | list[str]  # of a data key: [B, T, …], or texts


class BatchLike(Protocol):
    """Padded arrays [B, T, …] or lists of texts, lengths [B], tags, numbers of the sequences in the epoch, and the
    progress of the pass."""

    @property
    def data(self) -> Mapping[str, np.ndarray | Padded]: ...
    @property
    def lengths(self) -> Mapping[str, np.ndarray]: ...
    @property
    def tags(self) -> list[str]: ...
    @property
    def seq_idx(self) -> np.ndarray: ...
    @property
    def complete(self) -> float | None: ...


def num_rows(batch: BatchLike) -> int:
    """The batch dimension."""
    return len(next(iter(batch.data.values()))) if batch.data else len(batch.tags)
