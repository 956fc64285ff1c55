"""Slices for models written in torch: sequences outside of the length limits are left out, the others cut in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.batches.chunking import Chunking, Numbers, Slices, per_key
from returnn_lite.errors import ConfigError


@dataclass(frozen=True)
class TorchChunking:
    """Chunks begin at 0, step, 2 step, … of a sequence; those with at least `min_size` frames of each key are kept.

    A number is for every key; with a dict, every chunk has the other keys whole. All keys must give equally many.
    """

    size: Numbers
    step: Numbers
    min_size: Numbers

    @staticmethod
    def parse(value: ConfigValue, min_size: Numbers) -> TorchChunking | None:
        """The forms of the option `chunking` that are no function; None if it is off. Raises ConfigError."""
        if callable(value):
            raise ConfigError("chunking", "must not be a function for models by `get_model`; let a dataset cut")
        found = Chunking.parse(value, min_size)
        return None if found is None else TorchChunking(found.size, found.step, found.min_size)

    def chunks(self, parts: Iterable[Slices]) -> Iterator[Slices]:
        """The chunks of whole sequences."""
        for part in parts:
            yield self._cut(part)

    def _cut(self, whole: Slices) -> Slices:
        keys, lengths = whole.keys, whole.lengths
        cut = np.array([not isinstance(self.size, dict) or key in self.size for key in keys])
        size, step = per_key(self.size, keys), np.maximum(per_key(self.step, keys), 1)
        counts = self._counts(whole, cut, size, step)
        row = np.repeat(np.arange(len(whole)), counts)  # [M] sequence of each chunk
        turn = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # [M] 0, 1, … within its sequence
        start = np.where(cut, turn[:, None] * step, 0)
        end = np.where(cut, np.minimum(start + size, lengths[row]), lengths[row])
        return Slices(keys, whole.seq_idx[row], start, end)

    def _counts(self, whole: Slices, cut: np.ndarray, size: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Chunks per sequence, int64 [N]. ConfigError where keys give different numbers."""
        lengths, least = whole.lengths, per_key(self.min_size, whole.keys)
        long_enough = np.where(lengths >= least, (lengths - least) // step + 1, 0)
        counts = np.where(size >= least, np.minimum(-(-lengths // step), long_enough), 0)[:, cut]
        wrong = np.flatnonzero((counts != counts[:, :1]).any(1))
        if len(wrong):
            names = [key for key, own in zip(whole.keys, cut, strict=True) if own]
            found = dict(zip(names, counts[wrong[0]].tolist(), strict=True))
            text = f"sequence {whole.seq_idx[wrong[0]]} of the epoch must have the same number of chunks for all keys"
            raise ConfigError("chunking", f"{text}, but has {found}")
        numbers: np.ndarray = counts[:, 0]
        return numbers
