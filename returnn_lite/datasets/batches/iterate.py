"""Sequences of an epoch one after another, for those who look at each of them alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.options import blamed


def each_seq(dataset: Dataset, first: int = 0, end: float = math.inf) -> Iterator[int]:
    """The indices first ≤ i < end of the dataset's epoch; each sequence is loaded when it comes.

    Raises DataError with the tag of a sequence that cannot be loaded.
    """
    i = first
    while i < end and dataset.is_less_than_num_seqs(i):
        try:
            dataset.load_seqs(i, i + 1)
        except Exception as exc:
            raise blamed(place_of(dataset, i), exc) from exc
        yield i
        i += 1


def place_of(dataset: Dataset, seq_idx: int, key: str | None = None) -> str:
    """How an error message names a sequence, and with `key` the file that this key comes from."""
    try:
        place = f'{dataset.name}: sequence "{dataset.get_tag(seq_idx)}"'
    except Exception:  # the error that is to be reported is another one
        return f"{dataset.name}: sequence number {seq_idx}"
    file = None if key is None else dataset.file_of(seq_idx, key)
    return place if file is None else f"{place} of {file}"
