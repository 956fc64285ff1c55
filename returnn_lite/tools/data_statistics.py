"""Mean, standard deviation, minimum and maximum of data, in one pass over it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.limits import Limit, limits
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import output_file


class Statistics:
    """Of frames [T, …], for each of their numbers; sums of squares as in Chan, Golub, LeVeque (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(())
        self.squares: np.ndarray = np.zeros(())
        self.min: np.ndarray = np.array(math.inf)
        self.max: np.ndarray = np.array(-math.inf)

    def add(self, frames: np.ndarray) -> None:
        """Takes all frames [T, …] of a sequence.

        Raises ConfigError if they have another shape than those before, or numbers that are not finite.
        """
        if self.count and frames.shape[1:] != self.mean.shape:
            raise ConfigError("", f"must be frames of shape {self.mean.shape}, but are of {frames.shape[1:]} instead")
        if not len(frames):
            return
        frames = frames.astype(np.float64)
        mean = frames.mean(0)
        if not np.isfinite(mean).all():
            raise ConfigError("", "must be finite numbers, but some are NaN or infinite")
        squares = ((frames - mean) ** 2).sum(0)
        total = self.count + len(frames)
        difference = mean - self.mean
        self.squares = self.squares + squares + difference**2 * (self.count * len(frames) / total)
        self.mean = self.mean + difference * (len(frames) / total)
        self.min, self.max = np.minimum(self.min, frames.min(0)), np.maximum(self.max, frames.max(0))
        self.count = total

    @property
    def std_dev(self) -> np.ndarray:
        """Standard deviation of all frames (divided by their number)."""
        return np.asarray(np.sqrt(self.squares / max(self.count, 1)))

    def write(self, prefix: str, num_seqs: int) -> None:
        """`prefix`.mean.txt, .std_dev.txt, .min.txt, .max.txt (numpy text, a number a line), and .info.txt."""
        if not self.count:
            raise ConfigError(prefix, "no frames to write statistics of")
        parts = {"mean": self.mean, "std_dev": self.std_dev, "min": self.min, "max": self.max}
        for name, values in parts.items():
            with output_file(f"{prefix}.{name}.txt") as file:
                np.savetxt(file, np.atleast_1d(values))
        with output_file(f"{prefix}.info.txt") as file:
            file.write(repr({"num_seqs": num_seqs, "total_data_len": self.count}) + "\n")

    def line(self) -> str:
        """Numbers of single values, in one line."""
        return f"mean {self.mean:.6g}, std dev {self.std_dev:.6g}, min/max {self.min:.6g}/{self.max:.6g}"


class LengthStatistics:
    """Of the lengths of sequences, by data key; `shortest` and `longest` (a number, or by key) leave others out."""

    def __init__(self, shortest: Limit = None, longest: Limit = None):
        self.shortest, self.longest = shortest, longest
        self.by_key: dict[str, Statistics] = {}
        self.num_seqs = 0

    def add(self, lengths: Mapping[str, int]) -> bool:
        """Takes one sequence; returns whether it counts."""
        keys, values = tuple(lengths), np.array(list(lengths.values()))
        if (values > limits(self.longest, keys)).any() or (values < limits(self.shortest, keys, -np.inf)).any():
            return False
        self.num_seqs += 1
        for key, length in lengths.items():
            self.by_key.setdefault(key, Statistics()).add(np.array([length]))
        return True

    def lines(self, dataset: Dataset) -> list[str]:
        """A line for each key."""
        return [
            f"seq-length {key!r} of {dataset.name}: {self.num_seqs} seqs, {stats.line()}"
            for key, stats in sorted(self.by_key.items())
        ]
