"""Sequences -> slices: the whole of each sequence, or overlapping chunks of it, with frames of context around.

All is done on blocks of sequences, as integer arrays with one column per data key; lengths and positions are frames.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigFunction, ConfigValue
from returnn_lite.datasets.batches.limits import check_fraction, check_keys, check_limit
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.errors import ConfigError

Numbers = int | dict[str, int]
LengthBlock = tuple[int, np.ndarray]  # index of the first sequence in the epoch, int64 [N, K] lengths
UNLIMITED = np.iinfo(np.int64).max


@dataclass
class Slices:
    """Parts of sequences: `seq_idx` int64 [N] (index in the epoch), `start` and `end` int64 [N, K], one column per key.

    `start` may be negative and `end` beyond the sequence's end, where there are frames of context.
    """

    keys: tuple[str, ...]
    seq_idx: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Frames per slice and key, int64 [N, K]."""
        lengths: np.ndarray = self.end - self.start
        return lengths

    def __len__(self) -> int:
        return len(self.seq_idx)

    def __getitem__(self, index: ConfigValue) -> Slices:
        return Slices(self.keys, self.seq_idx[index], self.start[index], self.end[index])

    @staticmethod
    def join(parts: list[Slices]) -> Slices:
        """The slices of all parts, one after another; the keys must agree."""
        if len(parts) == 1:
            return parts[0]
        fields = ("seq_idx", "start", "end")
        return Slices(parts[0].keys, *(np.concatenate([getattr(p, field) for p in parts]) for field in fields))


# --- options ---


@dataclass(frozen=True)
class Chunking:
    """Size and step of chunks (frames, per key or for all keys), the longest rest left out, random shrinking."""

    size: Numbers
    step: Numbers
    min_size: Numbers = 0
    variance: float = 0.0

    @staticmethod
    def parse(value: ConfigValue, min_chunk_size: Numbers = 0, variance: float = 0.0) -> Chunking | None:
        """Any form of the option `chunking` that is not a function; None if chunking is off. Raises ConfigError."""
        size, step = _split(value)
        if not size:
            return None
        step = step or size
        if isinstance(size, dict) != isinstance(step, dict) or isinstance(size, dict) and size.keys() != step.keys():
            raise ConfigError("chunking", f"size and step must have the same keys, but are {size} and {step} instead")
        sizes, steps = (list(v.values()) if isinstance(v, dict) else [v] for v in (size, step))
        if min(sizes) <= 0 or min(steps) < 0 or max(steps) <= 0:
            raise ConfigError("chunking", f"size must be > 0, and a step too, but they are {size} and {step} instead")
        check_limit("min_chunk_size", min_chunk_size)
        check_fraction("chunking_variance", variance, below_one=True)
        return Chunking(size, step, min_chunk_size or 0, variance)

    def check_keys(self, used: tuple[str, ...], known: Collection[str], warn: Callable[[str], None]) -> None:
        """Raises ConfigError, or warns, for keys that there are not, and ConfigError if a used key has no size."""
        for option, value in (("chunking", self.size), ("min_chunk_size", self.min_size)):
            check_keys(option, value, known, warn)
        missing = [key for key in used if isinstance(self.size, dict) and key not in self.size]
        if missing:
            raise ConfigError("chunking", f"must have a size for {missing}, which the network uses, but is {self.size}")


def _split(value: ConfigValue) -> tuple[Any, Any]:
    """(size, step) of "50:25", "50", 50, (50, 25), a dict, a pair of dicts; None where not given."""
    if isinstance(value, str):
        size, _, step = value.partition(":")
        value = (size, step)
    if not isinstance(value, tuple | list):
        value = (value, None)
    if len(value) != 2:
        raise ConfigError("chunking", f"must be a size, or a pair of size and step, but is {value!r} instead")
    return _numbers(value[0]), _numbers(value[1])


def _numbers(value: ConfigValue) -> Numbers | None:
    if isinstance(value, dict):
        return {str(key): _frames(number) for key, number in value.items()}
    return _frames(value) if value else None


def _frames(value: ConfigValue) -> int:
    """A number of frames; raises ConfigError for what is no whole number."""
    try:
        number = int(value)
        if not isinstance(value, bool) and (isinstance(value, str) or number == value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError("chunking", f"must be whole numbers of frames, but is {value!r} instead")


def per_key(value: Numbers, keys: tuple[str, ...], default: int = 0) -> np.ndarray:
    """One number per key, int64 [K]: the same for all, or from a dict with `default` for keys that it lacks."""
    return np.array([value.get(key, default) if isinstance(value, dict) else value for key in keys], np.int64)


def context_frames(context_window: ConfigValue, keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Frames added (left, right) of each slice, int64 [K] each, for the option `context_window`."""
    if isinstance(context_window, tuple | list) and len(context_window) == 2:
        for side in context_window:
            check_limit("context_window", side)
        return per_key(context_window[0] or 0, keys), per_key(context_window[1] or 0, keys)
    if isinstance(context_window, int):
        context_window = {"data": context_window}
    if context_window is not None and not isinstance(context_window, dict):
        raise ConfigError(
            "context_window", f"must be a number, a dict or a pair of dicts, but is {context_window!r} instead"
        )
    check_limit("context_window", context_window)
    extra = np.maximum(per_key(context_window or {}, keys, 1), 1) - 1
    return extra // 2, extra - extra // 2


# --- slices ---


def whole_seqs(blocks: Iterable[LengthBlock], keys: tuple[str, ...]) -> Iterator[Slices]:
    """One slice per sequence."""
    for first, lengths in blocks:
        yield Slices(keys, np.arange(first, first + len(lengths)), np.zeros_like(lengths), lengths)


def one_by_one(parts: Iterable[Slices]) -> Iterator[Slices]:
    """The slices, each by itself."""
    for part in parts:
        for i in range(len(part)):
            yield part[i : i + 1]


def chunks(
    blocks: Iterable[LengthBlock], keys: tuple[str, ...], chunking: Chunking, rng: random.Random
) -> Iterator[Slices]:
    """The chunks of each sequence. With a variance, `rng` gives one number per sequence, when its turn comes."""
    cutter = Cutter(keys, chunking)
    for first, lengths in blocks:
        if not chunking.variance:
            yield cutter.cut(first, lengths, cutter.size, cutter.step)
            continue
        for i in range(len(lengths)):
            size, step = cutter.shrunk(rng.random())
            yield cutter.cut(first + i, lengths[i : i + 1], size, step)


def custom_chunks(generated: ConfigValue, keys: tuple[str, ...], num_seqs: float = math.inf) -> Iterator[Slices]:
    """Slices of a user's function, which gives (seq_idx, start, end), start and end as dicts by key (or one number)."""
    if not isinstance(generated, Iterable):
        raise ConfigError(
            "chunking", f"the function must yield (seq_idx, start, end), but returned {generated!r} instead"
        )
    for item in generated:
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise ConfigError("chunking", f"the function must yield (seq_idx, start, end), but yields {item!r} instead")
        seq_idx = item[0]
        if not isinstance(seq_idx, int | np.integer) or not 0 <= seq_idx < num_seqs:
            raise ConfigError("chunking", f"the function's sequence {seq_idx!r} is not in the epoch")
        start, end = (_bounds(int(seq_idx), bound, keys) for bound in item[1:])
        if (start > end).any():
            raise ConfigError("chunking", f"the function's slice of sequence {seq_idx} ends before it starts: {item}")
        yield Slices(keys, np.array([seq_idx]), start, end)


def _bounds(seq_idx: int, bound: ConfigValue, keys: tuple[str, ...]) -> np.ndarray:
    """A start or an end for each key, int64 [1, K]."""
    numbers = NumbersDict(bound)
    missing = [key for key in keys if numbers.get(key) is None]
    if missing:
        raise ConfigError("chunking", f"the function's slice of sequence {seq_idx} lacks the keys {missing}")
    return np.array([[_frames(numbers[key]) for key in keys]], np.int64)


def add_context(slices: Iterable[Slices], left: np.ndarray, right: np.ndarray) -> Iterator[Slices]:
    """The slices with more frames on both sides."""
    for part in slices:
        yield Slices(part.keys, part.seq_idx, part.start - left, part.end + right)


class Cutter:
    """Cuts blocks of sequences into chunks."""

    def __init__(self, keys: tuple[str, ...], chunking: Chunking):
        self.keys = keys
        self.size, self.step = per_key(chunking.size, keys), per_key(chunking.step, keys)
        self.min_size = per_key(chunking.min_size, keys)
        self.variance = chunking.variance
        self.main = self._main_key()

    def _main_key(self) -> int:
        """Column of the key whose length decides how many chunks there are: "data", else the first in the alphabet."""
        by_name = sorted(range(len(self.keys)), key=lambda k: (self.keys[k] != "data", self.keys[k]))
        if self.step[by_name[0]] > 0:
            return by_name[0]
        moving = [k for k in sorted(by_name, key=lambda k: self.keys[k]) if self.step[k] > 0]
        if not moving:
            raise ConfigError("chunking", f"no step > 0 for any of the used keys {list(self.keys)}")
        return moving[0]

    def shrunk(self, draw: float) -> tuple[np.ndarray, np.ndarray]:
        """Size and step made smaller by the factor 1 - draw * variance; ratios of multiples are kept."""
        factor = 1 - draw * self.variance
        size = np.maximum((self.size * factor).astype(np.int64), 1)
        step = np.maximum((self.step * factor).astype(np.int64), 1)
        moving = [k for k in range(len(self.keys)) if self.step[k] > 0]
        small = min(moving, key=lambda k: (self.step[k], self.keys[k]))
        for k in range(len(self.keys)):
            if self.size[k] > self.size[small] and self.size[k] % self.size[small] == 0:
                ratio = self.size[k] // self.size[small]
                size[k], step[k] = size[small] * ratio, step[small] * ratio
        return size, step

    def cut(self, first: int, lengths: np.ndarray, size: np.ndarray, step: np.ndarray) -> Slices:
        """All chunks of a block of sequences. Raises ConfigError where the keys' lengths do not fit together."""
        full = self._full_keys(first, lengths, step)  # [N, K]
        counts = self._counts(lengths, step)  # those taken as a whole count with their step, too
        row = np.repeat(np.arange(len(lengths)), counts)  # [M] sequence of each chunk
        turn = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # [M] 0, 1, … within its sequence
        full, lengths = full[row], lengths[row]
        start = np.where(full, 0, turn[:, None] * step)
        end = np.where(full, lengths, np.minimum(start + size, lengths))
        return Slices(self.keys, first + row, start, end)

    def _counts(self, lengths: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Chunks per sequence, [N]: as long as more than `min_size` frames are left of every key, but at least one."""
        left = lengths - self.min_size
        more = -(-left // np.maximum(step, 1)) - 1
        more = np.where(step > 0, more, np.where(left > 0, UNLIMITED - 1, 0))
        return np.where(lengths[:, self.main] > 0, 1 + np.maximum(more.min(1), 0), 0)

    def _full_keys(self, first: int, lengths: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Bool [N, K]: keys that every chunk takes as a whole, which are those with one frame (or none)."""
        main_length = lengths[:, self.main, None]
        alike = (step == step[self.main]) & (lengths == main_length)
        full: np.ndarray = ~alike & (lengths <= 1)
        least = np.where(self.min_size > 0, self.min_size, 1)
        count = (lengths - least) // np.maximum(step, 1) + 1
        wrong = ~alike & ~full & ((step == step[self.main]) | (step == 0) | (count != count[:, self.main, None]))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            self._refuse(first + row, lengths[row], column, step)
        return full

    def _refuse(self, seq_idx: int, lengths: np.ndarray, column: int, step: np.ndarray) -> None:
        key, main = self.keys[column], self.keys[self.main]
        known = dict(zip(self.keys, lengths.tolist(), strict=True))
        if step[column] == step[self.main]:
            reason = f"chunking with multiple data keys of different length: {known}"
        elif step[column] == 0:
            reason = f'"{key}" has no step, so it must have one frame at most: {known}'
        else:
            reason = f'"{key}" has a different number of chunks than "{main}": lengths {known}'
        raise ConfigError("chunking", f"sequence {seq_idx} of the epoch: {reason}")


def describe(chunking: Chunking | ConfigFunction) -> str:
    """ "50:25" for messages."""
    return f"{chunking.size}:{chunking.step}" if isinstance(chunking, Chunking) else repr(chunking)
