"""Slices -> mini-batches, and the options of it. Order is never changed; nothing is sorted into buckets here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from returnn_lite.config_value import ConfigFunction
from returnn_lite.datasets.batches.buckets import Buckets, ShuffledBatches
from returnn_lite.datasets.batches.chunking import Slices, one_by_one
from returnn_lite.datasets.batches.limits import Limit, check_fraction, check_keys, check_limit, limits
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.batches.torch_slices import TorchChunking
from returnn_lite.errors import ConfigError

Warn = Callable[[str], None]
# The index of a sequence in the epoch -> its `batch_size` and `max_seqs`.
LimitsOf = Callable[[int], tuple[Limit, int]]


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """How slices become batches. Sizes are frames; a limit is one number for every key, or a dict for some keys.

    `batch_size` bounds (longest slice) x (number of slices), `packed_batch_size` the sum of the lengths instead,
    `max_pad_size` the frames of padding. `max_seqs` -1 and `max_seq_length` 0 or None mean no limit; a `max_seq_length`
    of -n means {"classes": n}. Without `recurrent_net`, sequences are laid end to end in one row. `size_option` is the
    config's name of `batch_size`. `batch_size` and `max_seqs` may be functions, asked for every sequence.
    `as_torch`: by the rules for models written in torch. Limits of lengths are then for sequences, not for their
    chunks (`torch_chunking`), and for keys with an axis; `packed_batch_size` bounds batches besides `batch_size`;
    batches of empty sequences count; and what a batch says to be complete of the epoch is counted up to its last
    sequence, not its first, None where the number of sequences is not known before the end.
    `buckets`: batches by lengths in place of all limits of batches; `by_function`: batches by a function, which is told
    whether they are to train with (`trains`); `shuffled`: in a random order. `share` (i, n): of
    every n batches only number i is loaded; the others are somebody else's.
    """

    batch_size: Limit | ConfigFunction = None
    max_seqs: int | ConfigFunction = -1
    max_seq_length: Limit = None
    min_seq_length: Limit = None
    max_pad_size: Limit = None
    seq_drop: float = 0.0
    seq_drop_freq: int = 10
    max_total_num_seqs: int = -1
    packed_batch_size: Limit = None
    shuffle_batches: bool = False
    recurrent_net: bool = True
    used_data_keys: frozenset[str] | None = None
    size_option: str = "batch_size"
    as_torch: bool = False
    torch_chunking: TorchChunking | None = None
    buckets: Buckets | None = None
    shuffled: ShuffledBatches | None = None
    by_function: ConfigFunction | None = None
    trains: bool = False
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        """Raises ConfigError for values that make no sense."""
        if not self.batch_size and not self.packed_batch_size and self.buckets is None:
            raise ConfigError("batch_size", "batch_size must be set and be greater than 0")
        if not callable(self.batch_size):
            check_limit(self.size_option, self.batch_size, above=True)
        check_limit("packed_batch_size", self.packed_batch_size, above=True)
        check_limit("min_seq_length", self.min_seq_length)
        check_limit("max_pad_size", self.max_pad_size)
        longest = self.max_seq_length
        whole = isinstance(longest, int) and not isinstance(longest, bool)
        check_limit("max_seq_length", longest, least=-math.inf if whole else 0)
        counts = {"max_seqs": (self.max_seqs, -1), "seq_drop_freq": (self.seq_drop_freq, 1)}
        for name, (value, unlimited) in counts.items():
            if callable(value):
                continue
            if not isinstance(value, int) or value != unlimited and value < 1:
                text = "greater than 0 or -1 (no limit)" if unlimited < 0 else "greater than 0"
                raise ConfigError(name, f"must be {text}, but is {value!r} instead")
        check_fraction("seq_drop", self.seq_drop)

    def check_keys(self, known: Collection[str], warn: Warn) -> None:
        """Raises ConfigError, or warns, where a limit is given for a data key that there is not."""
        for name, limit in self._limits().items():
            check_keys(name, limit, known, warn)

    def _limits(self) -> dict[str, Limit]:
        """The limits that may be given per data key, by the options they come from."""
        return {
            self.size_option: None if callable(self.batch_size) else self.batch_size,
            "packed_batch_size": self.packed_batch_size,
            "max_seq_length": self.max_seq_length,
            "min_seq_length": self.min_seq_length,
            "max_pad_size": self.max_pad_size,
        }

    @property
    def changes(self) -> bool:
        """Whether limits of batches are functions."""
        return callable(self.batch_size) or callable(self.max_seqs)

    @property
    def longest(self) -> Limit:
        """`max_seq_length` with its special values resolved."""
        value = self.max_seq_length or None
        return {"classes": -value} if isinstance(value, int) and value < 0 else value


# --- which slices ---


def select(
    slices: Iterable[Slices], options: BatchingOptions, rng: random.Random, draw_always: bool, warn: Warn
) -> Iterator[Slices]:
    """Leaves out slices that are too long, too short or dropped by chance.

    `draw_always`: take a random number for each slice even if none is dropped (others use the same stream).
    """
    draw_always = draw_always or options.seq_drop > 0
    if not options.as_torch:
        slices = within_limits(slices, options)
    for part in slices:
        size = limits(None if callable(options.batch_size) else options.batch_size, part.keys)
        lengths = part.lengths
        for i in np.flatnonzero((lengths > size).any(1)):
            known = dict(zip(part.keys, lengths[i].tolist(), strict=True))
            warn(f"warning: sequence length ({known}) larger than limit ({options.batch_size})")
        if draw_always:
            draws = np.array([rng.random() for _ in range(len(part))])
            part = part[draws >= options.seq_drop]
        if len(part):
            yield part


def within_limits(slices: Iterable[Slices], options: BatchingOptions) -> Iterator[Slices]:
    """Leaves out slices that are too long or too short."""
    for part in slices:
        longest = limits(options.longest, part.keys)
        shortest = limits(options.min_seq_length, part.keys, -np.inf)
        fits = ((part.lengths <= longest) & (part.lengths >= shortest)).all(1)
        yield part if fits.all() else part[fits]


def first_seqs(slices: Iterable[Slices], maximum: int) -> Iterator[Slices]:
    """Stops with the first slice of sequence number `maximum` + 1; all of them if `maximum` is negative."""
    seen, last = 0, -1
    for part in slices:
        if maximum < 0:
            yield part
            continue
        new = part.seq_idx != np.concatenate([[last], part.seq_idx[:-1]])
        count = seen + np.cumsum(new)
        over = np.flatnonzero(count > maximum)
        if len(over):
            yield part[: over[0] + 1]
            return
        seen, last = int(count[-1]), int(part.seq_idx[-1])
        yield part


# --- one slice, one row ---


def padded_batches(
    slices: Iterable[Slices], options: BatchingOptions, limits_of: LimitsOf | None = None
) -> Iterator[SliceBatch]:
    """Batches of one slice per row; closed as soon as the next slice would break a limit.

    limits_of: the limits by the next slice, where they change; then each comes by itself.
    """
    group: _Group | None = None
    for part in slices if limits_of is None else one_by_one(slices):
        group = group or _Group(part.keys, options)
        if limits_of is not None:
            group.set_limits(*limits_of(int(part.seq_idx[0])))
        yield from group.add(part)
    # A last batch of nothing but empty sequences is left out for nets of layers.
    if group and group.count and (options.as_torch or group.longest.max(initial=0) > 0):
        yield group.close()


class _Group:
    """The batch that is being filled."""

    def __init__(self, keys: tuple[str, ...], options: BatchingOptions):
        self.keys, self.only_packed = keys, options.packed_batch_size is not None and not options.as_torch
        if not options.changes:
            self.set_limits(options.batch_size, options.max_seqs)  # type: ignore[arg-type]  # they are no functions
        self.packed_size = None if options.packed_batch_size is None else limits(options.packed_batch_size, keys)
        self.pad_size = None if options.max_pad_size is None else limits(options.max_pad_size, keys)
        self.num_keys, self.window = len(keys), 16
        self._empty()

    def set_limits(self, size: Limit, max_seqs: int) -> None:
        """The limits that the next slices must fit into."""
        self.size, self.max_seqs = limits(size, self.keys), max_seqs if max_seqs > 0 else np.inf

    def _empty(self) -> None:
        self.parts: list[Slices] = []
        self.count = 0
        self.longest = np.zeros(self.num_keys, np.int64)
        self.total = np.zeros(self.num_keys, np.int64)

    def add(self, slices: Slices) -> Iterator[SliceBatch]:
        """Takes all the slices; yields the batches which that completes."""
        lengths, at = slices.lengths, 0
        while at < len(slices):
            window = lengths[at : at + self.window]
            taken = self._fitting(window)
            if taken:
                self.parts.append(slices[at : at + taken])
                self.longest = np.maximum(self.longest, window[:taken].max(0))
                self.total = self.total + window[:taken].sum(0)
                self.count, at = self.count + taken, at + taken
            if taken < len(window):
                yield self.close()

    def _fitting(self, lengths: np.ndarray) -> int:
        """How many of the next slices, lengths [N, K], still fit; a first one always does."""
        count = self.count + np.arange(1, len(lengths) + 1)
        padded = np.maximum.accumulate(np.maximum(lengths, self.longest)) * count[:, None]
        total = self.total + np.cumsum(lengths, 0)
        bad = count > self.max_seqs
        if not self.only_packed:
            bad |= (padded > self.size).any(1)
        if self.packed_size is not None:
            bad |= (total > self.packed_size).any(1)
        if self.pad_size is not None:
            bad |= (padded - total > self.pad_size).any(1)
        if not self.count:
            bad[0] = False
        return int(bad.argmax()) if bad.any() else len(lengths)

    def close(self) -> SliceBatch:
        """The batch; a new empty one is started."""
        batch = SliceBatch.one_a_row(Slices.join(self.parts))
        self.window = 2 * self.count + 8
        self._empty()
        return batch


# --- end to end in one row ---


def framewise_batches(
    slices: Iterable[Slices], options: BatchingOptions, limits_of: LimitsOf | None = None
) -> Iterator[SliceBatch]:
    """Batches of one row that sequences fill frame by frame, cut where it is full (for nets that see single frames).

    Closed when `batch_size` frames are in, or more than `max_seqs` sequences.
    """
    row: _Row | None = None
    for part in slices if limits_of is None else one_by_one(slices):
        row = row or _Row(part.keys, options)
        if limits_of is not None:
            row.set_limits(*limits_of(int(part.seq_idx[0])))
        at = 0
        while at < len(part):
            at += row.add_whole(part, at)
            if at < len(part):
                yield from row.add(int(part.seq_idx[at]), part.start[at].tolist(), part.end[at].tolist())
                at += 1
    if row and row.entries:
        yield row.close()


class _Row:
    """The row that is being filled; plain lists, as most sequences make one or two entries."""

    def __init__(self, keys: tuple[str, ...], options: BatchingOptions):
        self.keys = keys
        if not options.changes:
            self.set_limits(options.batch_size, options.max_seqs)  # type: ignore[arg-type]  # they are no functions
        self._empty()

    def set_limits(self, size: Limit, max_seqs: int) -> None:
        """The limits that the next slices must fit into."""
        self.size, self.max_seqs = limits(size, self.keys).tolist(), max_seqs if max_seqs > 0 else np.inf

    def _empty(self) -> None:
        self.entries: list[tuple[int, list[int], list[int], int]] = []
        self.frames = [0] * len(self.keys)

    def add_whole(self, slices: Slices, first: int) -> int:
        """Appends the slices from `first` on that leave room, as far as their keys have equal lengths; how many."""
        frames = self.frames[0]
        if min(self.frames) < max(self.frames):
            return 0
        room = min(self.size) - frames
        window = slices[first : first + max(int(room), 0)] if room < np.inf else slices[first:]
        lengths = window.lengths
        ends = frames + np.cumsum(lengths[:, 0])
        start_idx = self.entries[0][0] if self.entries else window.seq_idx[:1]
        fits = (lengths[:, :1] == lengths).all(1) & (lengths[:, 0] > 0) & (ends < min(self.size))
        fits &= window.seq_idx + 1 - start_idx <= self.max_seqs
        count = len(fits) if fits.all() else int(fits.argmin())
        taken, ends = window[:count], ends[:count]
        columns = (taken.seq_idx, taken.start, taken.end, ends - lengths[:count, 0])
        self.entries += zip(*(column.tolist() for column in columns), strict=True)
        self.frames = [int(ends[-1])] * len(self.keys) if count else self.frames
        return count

    def add(self, seq_idx: int, start: list[int], end: list[int]) -> Iterator[SliceBatch]:
        """Appends the frames start…end of a sequence; yields the batches which that completes."""
        while any(s < e for s, e in zip(start, end, strict=True)):
            room = [size - frames for size, frames in zip(self.size, self.frames, strict=True)]
            stop = [s + int(min(e - s, r)) for s, e, r in zip(start, end, room, strict=True)]
            offset = max(self.frames)  # the keys start together
            self.entries.append((seq_idx, start, stop, offset))
            self.frames = [offset + e - s for s, e in zip(start, stop, strict=True)]
            start = stop
            full = any(frames >= size for frames, size in zip(self.frames, self.size, strict=True))
            if full or seq_idx + 1 - self.entries[0][0] > self.max_seqs:
                yield self.close()

    def close(self) -> SliceBatch:
        """The batch; a new empty one is started."""
        seq_idx, start, end, offset = (np.array(column, np.int64) for column in zip(*self.entries, strict=True))
        self._empty()
        return SliceBatch(Slices(self.keys, seq_idx, start, end), np.zeros_like(seq_idx), offset)
