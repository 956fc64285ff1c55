"""Datasets whose sequences are made one after the other: those that were asked for stay until they are forgotten."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from returnn_lite.datasets.combined.sub import EpochDataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import DataError


class Item(NamedTuple):
    """A sequence as it was made: data by key, and how much of the epoch is over with it (None: not known)."""

    tag: str
    seq: Seq
    complete: float | None = None


class ReadInOrder(EpochDataset):
    """What they have in common. A subclass calls `_begin` when an epoch starts, and makes sequences in `_next`."""

    forwards_only = True

    @abstractmethod
    def _next(self) -> Item | None:
        """The next sequence; None at the end."""

    def _begin(self) -> None:
        """No sequences yet."""
        self._made: dict[int, Item] = {}
        self._count, self._ended = 0, False

    def _pull(self, seq_idx: int) -> bool:
        """Goes on until the sequence is there; False if the epoch ends before."""
        while self._count <= seq_idx and not self._ended:
            item = self._next()
            if item is None:
                self._ended = True
            else:
                self._made[self._count] = item
                self._count += 1
        return seq_idx < self._count

    def _item(self, seq_idx: int) -> Item:
        if not self._pull(seq_idx):
            raise DataError(self.name, f"sequence {seq_idx} does not exist: the epoch has {self._count}")
        if seq_idx not in self._made:
            text = f"sequence {seq_idx} is no longer available: sequences can only be read in order"
            raise DataError(self.name, text)
        return self._made[seq_idx]

    def _seq(self, seq_idx: int) -> Seq:
        return self._item(seq_idx).seq

    def get_tag(self, seq_idx: int) -> str:
        """The tag that the sequence was made with."""
        return self._item(seq_idx).tag

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
