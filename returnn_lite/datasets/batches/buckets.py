"""Batches of sequences of similar lengths, and batches in a random order: for models written in torch."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.batches.chunking import Slices
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.errors import ConfigError, did_you_mean

T = TypeVar("T", SliceBatch, Batch)


@dataclass(frozen=True)
class Buckets:
    """A sequence goes to the first bucket whose bound is not below its length of `key`; there is none: it is left out.

    A bucket with as many sequences as its size is a batch; what is left in the end are batches, too. With
    `random_prob` a sequence goes to any of the buckets that it fits into.
    """

    bounds: tuple[int, ...]
    sizes: tuple[int, ...]
    key: str
    random_prob: float = 0.0
    seed: int | None = None

    @staticmethod
    def parse(options: ConfigDict, path: str) -> Buckets:
        """From `buckets`: [(longest length, number of sequences), …], `length_key`, `random_bucket_prob`, `seed`."""
        known = ("buckets", "length_key", "random_bucket_prob", "seed")
        check_options(options, known, path)
        pairs, key = options.get("buckets"), options.get("length_key")
        if not isinstance(pairs, list | tuple) or not pairs or not all(_is_pair(pair) for pair in pairs):
            raise ConfigError(
                f'{path}["buckets"]', f"must be pairs (longest length, sequences), but is {pairs!r} instead"
            )
        if not isinstance(key, str):
            raise ConfigError(f'{path}["length_key"]', f"must be the name of a data key, but is {key!r} instead")
        bounds, sizes = zip(*sorted((int(bound), int(size)) for bound, size in pairs), strict=True)
        prob = finite(f'{path}["random_bucket_prob"]', options.get("random_bucket_prob", 0.0), low=0, high=1)
        seed = options.get("seed")
        return Buckets(bounds, sizes, key, prob, None if seed is None else whole(f'{path}["seed"]', seed))

    def batches(self, parts: Iterable[Slices], epoch_seed: int, full: dict[int, int]) -> Iterator[SliceBatch]:
        """The batches; `full` gets how many each bucket gave, by its bound, when it was full."""
        rng = random.Random(epoch_seed if self.seed is None else self.seed)
        waiting: list[list[Slices]] = [[] for _ in self.bounds]
        for part in parts:
            lengths = part.lengths[:, self._column(part.keys)]
            for i, first in enumerate(np.searchsorted(self.bounds, lengths).tolist()):
                if first == len(self.bounds):
                    continue
                bucket = first
                if self.random_prob and rng.random() < self.random_prob:
                    bucket = rng.randrange(first, len(self.bounds))
                waiting[bucket].append(part[i : i + 1])
                if len(waiting[bucket]) >= self.sizes[bucket]:
                    full[self.bounds[bucket]] = full.get(self.bounds[bucket], 0) + 1
                    yield _batch(waiting[bucket], waiting)
                    waiting[bucket] = []
        for rest in waiting:
            if rest:
                yield _batch(rest, waiting)

    def _column(self, keys: tuple[str, ...]) -> int:
        if self.key not in keys:
            hint = did_you_mean(self.key, keys)
            raise ConfigError('torch_batching["length_key"]', f"unknown data key {self.key!r}{hint}; known: {keys}")
        return keys.index(self.key)


def _batch(parts: list[Slices], waiting: list[list[Slices]]) -> SliceBatch:
    """A batch of some of the sequences that wait, each bucket's in order."""
    first = min(int(bucket[0].seq_idx[0]) for bucket in waiting if bucket)
    return replace(SliceBatch.one_a_row(Slices.join(parts)), first_needed=first)


def check_options(options: ConfigDict, known: Iterable[str], path: str) -> None:
    """ConfigError for an unknown key of a dict with "class"."""
    for key in options:
        if key not in ("class", *known):
            hint = did_you_mean(str(key), list(known))
            raise ConfigError(f'{path}["{key}"]', f"unknown option{hint} (options: {', '.join(known)})")


def _is_pair(value: ConfigValue) -> bool:
    numbers = isinstance(value, list | tuple) and len(value) == 2
    return numbers and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)


@dataclass(frozen=True)
class ShuffledBatches:
    """Batches in a random order, as far as a buffer reaches; what they say to be complete of the epoch stays in order.

    seed: None for one of the epoch.
    """

    buffer_size: int
    seed: int | None = None

    @staticmethod
    def parse(value: ConfigValue) -> ShuffledBatches | None:
        """The option `online_shuffle_batches`: a number of batches, or a dict with "buffer_size" and "seed"."""
        option = "online_shuffle_batches"
        if not value:
            return None
        options = value if isinstance(value, dict) else {"buffer_size": value}
        check_options(options, ("buffer_size", "seed"), option)
        size, seed = whole(f'{option}["buffer_size"]', options.get("buffer_size"), low=1), options.get("seed")
        return ShuffledBatches(size, None if seed is None else whole(f'{option}["seed"]', seed))

    def shuffled(self, batches: Iterable[T], epoch_seed: int) -> Iterator[T]:
        """A full buffer gives any of its batches for each one that comes."""
        rng = random.Random(epoch_seed if self.seed is None else self.seed)
        held: list[T] = []
        done: deque[float | None] = deque()
        for batch in batches:
            held.append(batch)
            done.append(batch.complete)
            if len(held) > self.buffer_size:
                yield replace(held.pop(rng.randrange(len(held))), complete=done.popleft())
        rng.shuffle(held)
        for batch in held:
            yield replace(batch, complete=done.popleft())
