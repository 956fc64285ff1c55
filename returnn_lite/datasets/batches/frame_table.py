"""All frames of a small dataset laid end to end, from which batches are taken by indexing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.casting import AS_IT_IS, kept_dtype, misfit

LARGEST = 2**28  # bytes


@dataclass
class FrameTable:
    """`frames` [N, …] by key, and the first frame of each sequence of the corpus; `tags` of the sequences."""

    frames: dict[str, np.ndarray]
    first: dict[str, np.ndarray]
    tags: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, dtypes: Mapping[str, str], classes: Mapping[str, int]) -> FrameTable | None:
        """The table of a dataset whose sequences are always the same; None for others, large ones, and those with
        values that must be refused."""
        lengths = dataset.corpus_lengths()
        if not dataset.constant or lengths is None or any(not dataset.has_time(key) for key in dtypes):
            return None
        seqs = dataset.load_corpus_seqs(np.arange(int(dataset.get_total_num_seqs())))
        if sum(seq[key].nbytes for seq in seqs for key in dtypes) > LARGEST or "string" in dtypes.values():
            return None
        stored = {key: np.concatenate([seq[key] for seq in seqs]) for key in dtypes}
        own = {key: kept_dtype([stored[key]]) for key, dtype in dtypes.items() if dtype == AS_IT_IS}
        wanted = {**dtypes, **own}
        if any(misfit(stored[key], np.dtype(dtype), classes.get(key)) for key, dtype in wanted.items()):
            return None
        frames = {key: stored[key].astype(dtype) for key, dtype in wanted.items()}
        first = {key: np.cumsum(lengths[key]) - lengths[key] for key in dtypes}
        sound = all(np.isfinite(values).all() for values in frames.values())
        tags = np.array([dataset.corpus_tag(i) for i in range(len(seqs))], object)
        return cls(frames, first, tags) if sound else None

    def batch(self, dataset: Dataset, plan: SliceBatch) -> Batch:
        """As `collate`; slices must not reach beyond their sequences."""
        slices = plan.slices
        data: dict[str, np.ndarray | list[str]] = {}
        lengths: dict[str, np.ndarray] = {}
        indices = dataset.get_current_seq_order()[slices.seq_idx]
        for column, key in enumerate(slices.keys):
            if key not in self.frames:
                continue
            count = slices.end[:, column] - slices.start[:, column]
            lengths[key] = np.zeros(plan.num_rows, np.int32)
            np.maximum.at(lengths[key], plan.row, (plan.offset + count).astype(np.int32))
            longest = int(lengths[key].max(initial=0))
            source = self.frames[key]
            out = np.zeros((plan.num_rows * longest, *source.shape[1:]), source.dtype)
            here = spread(self.first[key][indices] + slices.start[:, column], count)
            out[spread(plan.row * longest + plan.offset, count)] = source[here]
            data[key] = out.reshape(plan.num_rows, longest, *source.shape[1:])
        return Batch(data, lengths, self.tags[indices].tolist(), slices.seq_idx, plan.complete)


def spread(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, … (count[0] numbers), first[1], …"""
    ends = np.cumsum(count)
    return np.repeat(first - ends + count, count) + np.arange(int(ends[-1]) if len(ends) else 0)
