"""A mini-batch before its data are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from returnn_lite.datasets.batches.chunking import Slices


@dataclass
class SliceBatch:
    """One mini-batch: which frames stand where. `row` int64 [N] is the batch entry, `offset` int64 [N] the first frame.

    `complete`: how much of the epoch is done with it, in (0, 1]; None if that is not known. `first_needed`: the first
    sequence that this batch or a later one needs; None: the first of its own.
    """

    slices: Slices
    row: np.ndarray
    offset: np.ndarray
    complete: float | None = 0.0
    first_needed: int | None = None

    @property
    def keep_from(self) -> int:
        """Sequences before this one can be forgotten."""
        return int(self.slices.seq_idx.min()) if self.first_needed is None else self.first_needed

    @property
    def num_rows(self) -> int:
        """Entries along the batch axis."""
        return int(self.row[-1]) + 1 if len(self.row) else 0

    @classmethod
    def one_a_row(cls, slices: Slices) -> SliceBatch:
        """One slice per row."""
        return cls(slices, np.arange(len(slices)), np.zeros(len(slices), np.int64))
