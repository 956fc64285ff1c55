"""What every dataset is: options, the epoch's order, and access to sequences by their index in that order."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigOptions
from returnn_lite.datasets.corpus import Corpus, Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions, NoSuchKey
from returnn_lite.datasets.order.ordering import OrderOptions, indices_of_tags, ordering_name, seq_order
from returnn_lite.datasets.order.seq_list import read_seq_lens, read_seq_list
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

BATCH_SHUFFLE_SEED = 1234


@dataclass
class BatchCache:
    """The batches of an epoch, kept while the order stays the same; `options` are those which made them."""

    batches: list[Any] = field(default_factory=list)
    options: Any = None
    rng: random.Random = field(default_factory=lambda: random.Random(BATCH_SHUFFLE_SEED))


class Dataset(Corpus):
    """Sequences of a corpus, in the order of the present epoch.

    A *corpus index* counts all sequences, `seq_idx` counts those of the epoch. After construction the epoch is empty:
    `init_seq_order` starts one; `load_seqs` prepares a range of it for `get_data`.

    Subclasses set `num_inputs`, `num_outputs` ({key: (dim, ndim)}, ndim with time and without batch; for texts
    {key: {"dtype": "string", "shape": ()}}) and `labels`, and implement `get_total_num_seqs` and `load_corpus_seqs`;
    those that know lengths beforehand also `corpus_lengths`.
    """

    have_corpus_seq_idx = True
    supports_sharding = True
    defaulted: frozenset[str] = frozenset()  # options that were not written, but come from the dataset's role
    provenance = ""  # where the sequences come from: the end of an error message about the whole dataset
    constant = False  # the data of a sequence are the same whenever they are loaded, and in memory
    forwards_only = False  # sequences can be read in their order alone
    constant_parts: tuple[str, ...] = ()  # attributes whose content no epoch changes: processes that read get them once
    reuses_batches = False  # keeps the batches of an epoch for the next one if the order is the same

    def __init__(self, base: BaseOptions | None = None, *, log: Log | None = None):
        self.options = base or BaseOptions()
        self.name = self.options.name
        self.window = self.options.window or 1
        self.log = log or Log.silent()
        self.num_outputs, self.labels = {}, {}
        self.epoch: int | None = None
        self.batch_cache = BatchCache()
        self.wanted_keys: Sequence[str] | None = None
        self._order: np.ndarray | None = np.empty(0, np.int64)  # None: 0, 1, 2, … without end
        self._loaded: dict[int, Seq] = {}

    @classmethod
    def from_options(cls, base: ConfigOptions, own: ConfigOptions, log: Log | None) -> Dataset:
        """One by the options that every dataset has, and those of its class."""
        return cls(BaseOptions(**base), log=log, **own)

    @classmethod
    def needed_options(cls, without_default: Collection[str]) -> Collection[str]:
        """The options that must be given, of those without a default."""
        return without_default

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} epoch={self.epoch}>"

    # --- the epoch ---

    def initialize(self) -> None:
        """Starts an empty epoch."""
        self.init_seq_order()

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch; returns whether the order differs from before.

        `seq_list` (tags) or `seq_order` (corpus indices) replace the dataset's own order and everything that belongs to
        it: partitions, filters, repetition.
        """
        if self.options._num_shards > 1 and not self.supports_sharding:
            raise ConfigError(f"{self.name}: _num_shards", f"{type(self).__name__} cannot be sharded")
        before, self.epoch, self._loaded = self._order, epoch, {}
        self._order = self._new_order(epoch, seq_list, seq_order)
        same = before is self._order if before is None or self._order is None else np.array_equal(before, self._order)
        if not same:
            self.batch_cache = BatchCache()
        return not same

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        total = self.get_total_num_seqs()
        if seq_list is not None:
            return indices_of_tags(seq_list, self.corpus_index)
        if given is not None:
            order = np.asarray(given, np.int64).reshape(-1)
            if len(order) and not 0 <= order.min() <= order.max() < total:
                raise ConfigError(self.name, f"seq_order must hold numbers from 0 to {total - 1}")
            return order
        if epoch is None:
            return np.empty(0, np.int64)
        if math.isinf(total):
            self._check_endless(epoch)
            return None
        if not total:
            raise ConfigError(self.name, f"no sequences{self.provenance}")
        try:
            return seq_order(self.order_options, epoch, int(total), self._lengths_for_order, self.get_all_tags)
        except ConfigError as exc:
            hint = self._default_order_hint() if exc.path == "seq_ordering" else ""
            raise type(exc)(f"{self.name}: {exc.path}", exc.message + hint) from None

    def _default_order_hint(self) -> str:
        """The end of an error message about an order that nobody wrote."""
        if "seq_ordering" not in self.defaulted:
            return ""
        return f'; that is the default of {self.name}: set "seq_ordering": "default" in its options'

    def _check_endless(self, epoch: int) -> None:
        """Raises ConfigError for an order that a dataset without end cannot have."""
        ordering = ordering_name(self.order_options.seq_ordering, epoch)
        if ordering != "default" or (self.options.partition_epoch or 1) > 1:
            raise ConfigError(
                f"{self.name}: seq_ordering",
                f'must be "default" without partitions for an endless dataset, but is "{ordering}" instead',
            )

    def _lengths_for_order(self) -> np.ndarray | None:
        if self.options.seq_order_seq_lens_file:
            return read_seq_lens(self.options.seq_order_seq_lens_file, self.get_all_tags())
        return self.sort_lengths()

    @cached_property
    def order_options(self) -> OrderOptions:
        """What decides the order of an epoch; the filter file is read once."""
        base, wanted = self.options, None
        if base.seq_list_filter_file:
            wanted = frozenset(read_seq_list(base.seq_list_filter_file))
        return OrderOptions(
            seq_ordering=base.seq_ordering or "default",
            fixed_random_seed=base.fixed_random_seed,
            random_seed_offset=base.random_seed_offset or 0,
            partition_epoch=base.partition_epoch,
            repeat_epoch=base.repeat_epoch,
            unique_seq_tags=base.unique_seq_tags,
            seq_list_filter=wanted,
            num_shards=base._num_shards,
            shard_index=base._shard_index,
        )

    def sort_longest_first(self) -> None:
        """From the next epoch on the order is by length, if the lengths are known."""
        try:
            endless = math.isinf(self.get_total_num_seqs())
        except NotImplementedError:  # a stream
            return
        if not endless and self._lengths_for_order() is not None:
            self.order_options = replace(self.order_options, seq_ordering="sorted_reverse")

    def epoch_seed(self) -> int:
        """Seed of everything random in this epoch; the same during one full pass of a partitioned corpus."""
        return self.order_options.seed(self.epoch)

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """Only these keys will be asked for (None: all): a dataset may save itself the work for the others."""
        self.wanted_keys, self._loaded = keys, {}

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch: data access is over until the next `init_seq_order`."""
        self._loaded = {}

    # --- sequences of the epoch ---

    @property
    def num_seqs(self) -> int | float:
        """Sequences of this epoch; may be math.inf. Raises NotImplementedError where that is not known."""
        return math.inf if self._order is None else len(self._order)

    @property
    def known_num_seqs(self) -> int | None:
        """Sequences of this epoch; None where that is not known, or there is no end."""
        try:
            number = self.num_seqs
        except NotImplementedError:
            return None
        return None if math.isinf(number) else int(number)

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return n < self.num_seqs

    def load_seqs(self, start: int, end: int) -> None:
        """Loads the sequences start ≤ seq_idx < end of the epoch and forgets the others. `end` may be too large."""
        if not 0 <= start <= end:
            raise ConfigError(self.name, f"load_seqs needs 0 <= start <= end, but they are {start} and {end}")
        wanted = range(start, self._end(start, end))
        # Sequences loaded ahead to learn their lengths are kept.
        last = end if self.corpus_lengths() is not None else math.inf
        self._loaded = {i: seq for i, seq in self._loaded.items() if start <= i < last}
        missing = [i for i in wanted if i not in self._loaded]
        if missing:
            self._loaded.update(zip(missing, self.load_epoch_seqs(missing), strict=True))

    def _end(self, start: int, end: int) -> int:
        """`end`, or the end of the epoch if that comes first."""
        try:
            return int(min(end, self.num_seqs))
        except NotImplementedError:
            return next((i for i in range(start, end) if not self.is_less_than_num_seqs(i)), end)

    def _seq(self, seq_idx: int) -> Seq:
        """A sequence of the epoch, loaded now if it is not yet."""
        if seq_idx not in self._loaded:
            self._loaded[seq_idx] = self.load_epoch_seqs([seq_idx])[0]
        return self._loaded[seq_idx]

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """The data of some sequences of the epoch, by their indices in it."""
        return self.load_corpus_seqs(np.array([self.get_corpus_seq_idx(i) for i in seq_idx], np.int64))

    def get_data(self, seq_idx: int, key: str) -> np.ndarray:
        """Array of one key, time first."""
        seq = self._seq(seq_idx)
        if key not in seq:
            raise NoSuchKey(self.name, f'unknown key "{key}"{did_you_mean(key, seq)}; known: {sorted(seq)}')
        return seq[key]

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key; data without time count as one frame."""
        lengths = self.corpus_lengths()
        if lengths is not None:
            index = self.get_corpus_seq_idx(seq_idx)
            return NumbersDict({key: int(values[index]) for key, values in lengths.items()})
        seq = self._seq(seq_idx)
        return NumbersDict({key: len(seq[key]) if seq[key].ndim else 1 for key in self.get_data_keys()})

    def epoch_lengths(self, start: int, end: int) -> np.ndarray | None:
        """Frames of the sequences start…end, int64 [N, K] by `get_data_keys`; None if not known in advance."""
        lengths = self.corpus_lengths()
        if lengths is None or self._order is None:
            return None
        order = self._order[start:end]
        return np.stack([lengths[key][order] for key in self.get_data_keys()], 1).astype(np.int64)

    def get_tag(self, seq_idx: int) -> str:
        """Name of a sequence of the epoch."""
        return self.corpus_tag(self.get_corpus_seq_idx(seq_idx))

    def file_of(self, seq_idx: int, key: str) -> str | None:
        """The file that the data of a key come from; None where there is none, or it is not known."""
        return None

    def get_corpus_seq_idx(self, seq_idx: int) -> int:
        """Corpus index of a sequence of the epoch."""
        return seq_idx if self._order is None else int(self._order[seq_idx])

    def get_current_seq_order(self) -> np.ndarray:
        """Corpus indices of the epoch, int64 [N]."""
        if self._order is None:
            raise NotImplementedError(f"{self.name}: an endless epoch has no list of sequences")
        return self._order

    def get_estimated_seq_length(self, seq_idx: int) -> float:
        """The length that orders by length go by."""
        lengths = self.sort_lengths()
        if lengths is None:
            raise NotImplementedError(f"{self.name}: lengths are not known in advance")
        return float(lengths[self.get_corpus_seq_idx(seq_idx)])

    def get_complete_frac(self, seq_idx: int) -> float:
        """How much of the epoch is done after this sequence, in (0, 1]; grows for ever where the end is not known."""
        try:
            total = self.num_seqs
        except NotImplementedError:
            total = self.options.estimated_num_seqs or math.inf
        if math.isinf(total):
            return max(1e-10, (1 - 1 / (math.sqrt(seq_idx) / 100 + 1)) * 0.99)
        return min((seq_idx + 1) / total, 1.0) if total else 1.0
