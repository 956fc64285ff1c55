"""Leaving out the longest sequences in some epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log


@dataclass(frozen=True)
class EpochFilter:
    """The option `epoch_wise_filter`: {(first epoch, last epoch): {"max_mean_len": …}}, inclusive, None: open."""

    entries: tuple[tuple[int, float, ConfigOptions], ...] = ()

    @classmethod
    def parse(cls, value: ConfigValue, path: str, known: tuple[str, ...] = ("max_mean_len",)) -> EpochFilter:
        """From the option's value; raises ConfigError if it is not as it must be."""
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ConfigError(path, f"must be a dict (first epoch, last epoch) -> options, but is {value!r} instead")
        entries = []
        for epochs, options in value.items():
            if not isinstance(epochs, tuple) or len(epochs) != 2 or not isinstance(options, Mapping):
                raise ConfigError(path, f"must have entries (first, last): options, but has {epochs!r}: {options!r}")
            for name in options:
                if name not in known:
                    raise ConfigError(f"{path}[{epochs}]", f'unknown option "{name}"{did_you_mean(str(name), known)}')
            first, last = epochs
            entries.append((first or 0, float("inf") if last in (None, -1) else last, dict(options)))
        return cls(tuple(sorted(entries, key=lambda entry: entry[:2])))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def options(self, epoch: int) -> list[ConfigOptions]:
        """The options that hold in an epoch."""
        return [options for first, last, options in self.entries if first <= epoch <= last]

    def apply(self, order: np.ndarray, lengths: np.ndarray, epoch: int, log: Log) -> np.ndarray:
        """The order with the shortest sequences only; `lengths` [corpus]."""
        for options in self.options(epoch):
            if options.get("max_mean_len"):
                order = shortest(order, lengths, options["max_mean_len"], log)
        return order


def shortest(order: np.ndarray, lengths: np.ndarray, max_mean_len: float, log: Log) -> np.ndarray:
    """The order without its longest sequences: as many are left as make the mean length just exceed the limit."""
    if not len(order):
        return order
    own = lengths[order]
    ranked = np.lexsort((order, own))
    sums = np.cumsum(own[ranked], dtype=np.float64)
    low, high = 1, len(order) + 1
    while low < high:
        num = (low + high) // 2
        mean = sums[num - 1] / num
        if mean == max_mean_len:
            low = num
            break
        low, high = (low, num) if mean > max_mean_len else (num + 1, high)
    keep = np.zeros(len(order), bool)
    keep[ranked[:low]] = True
    log.v4(
        f"filter by length: mean {sums[-1] / len(order):.1f} -> {own[keep].mean():.1f} (limit {max_mean_len}),"
        f" {len(order)} -> {keep.sum()} sequences"
    )
    kept: np.ndarray = order[keep]
    return kept
