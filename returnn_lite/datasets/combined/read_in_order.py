"""Datasets whose sequences are made one after the other: those that were asked for stay until they are forgotten."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from returnn_lite.datasets.combined.sub import EpochDataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict


class ReadInOrder(EpochDataset):
    """What they have in common. `_made`: what there is of a sequence, by its index; `_pull`, `_seq` are their own."""

    _made: dict[int, Any]  # Any: of a kind of its own for each class

    @abstractmethod
    def _pull(self, seq_idx: int) -> bool:
        """Goes on until the sequence is there; False if the epoch ends before."""

    def load_seqs(self, start: int, end: int) -> None:
        """Makes the sequences start ≤ i < end and forgets those before."""
        self._made = {i: item for i, item in self._made.items() if i >= start}
        self._pull(end - 1)

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """The sequences."""
        return [self._seq(i) for i in seq_idx]

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key."""
        return NumbersDict({key: len(array) if array.ndim else 1 for key, array in self._seq(seq_idx).items()})
