"""`StreamDataset`: sequences that come one after another, of which nobody knows how many there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from returnn_lite.datasets.combined.read_in_order import Item, ReadInOrder
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, blamed
from returnn_lite.datasets.streaming.windows import shuffled, sorted_in_windows
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

Entry = tuple[str, Callable[[], Seq]]  # tag, and what makes the sequence of what was read
Reading = Callable[[], Entry]  # reads an entry; not called for those that belong to others


class StreamDataset(ReadInOrder):
    """Base class: sub-classes implement `entries`.

    An epoch has `seqs_per_epoch` sequences and goes on where the one before ended, over and over again; None: all of
    them once. Sequences are shuffled within a window of `shuffle_window`, then ordered by length within one of
    `sort_window`, upwards and downwards in turn, so that batches have little padding. A part of a sharded dataset skips
    what belongs to the others. Sequences can be read forwards only.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        seqs_per_epoch: int | None = None,
        shuffle_window: int = 0,
        sort_window: int = 0,
        length_key: str | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        sizes = {"shuffle_window": (shuffle_window, 0), "sort_window": (sort_window, 0)}
        if seqs_per_epoch is not None:
            sizes["seqs_per_epoch"] = (seqs_per_epoch, 1)
        for option, (value, least) in sizes.items():
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{self.name}: {option}", f"must be at least {least}, but is {value!r} instead")
        if (self.options.partition_epoch or 1) > 1:
            raise ConfigError(f"{self.name}: partition_epoch", "the length is not known; use seqs_per_epoch instead")
        self.per_epoch, self.length_key = seqs_per_epoch, length_key
        self.shuffle_window, self.sort_window = shuffle_window, sort_window
        self._order = None
        self._endless: Iterator[Reading] = iter(())
        self._position = 0  # the number of its next sequence, over all passes
        self._start(iter(()))

    @abstractmethod
    def entries(self, skip: int) -> Iterator[Reading]:
        """One pass over the data, without the first `skip` sequences."""

    def check_length_key(self) -> None:
        """ConfigError if sequences are to be sorted by a key that there is not. To be called when keys are known."""
        keys = self.get_data_keys()
        if self.length_key is not None and self.length_key not in keys:
            text = f'unknown key "{self.length_key}"{did_you_mean(self.length_key, keys)}; known: {keys}'
            raise ConfigError(f"{self.name}: length_key", text)

    # --- the epoch ----------------------------------------------------------------------------------------------------

    def _start(self, stream: Iterator[Item]) -> None:
        self._stream = stream
        self._begin()

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_stream": iter(()), "_made": {}, "_endless": iter(()), "_position": 0}

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch; in this process it goes on from the one before without reading anything twice."""
        self.refuse_lists(seq_list, seq_order)
        ordering = self.options.seq_ordering or "default"
        if ordering != "default" and "seq_ordering" not in self.defaulted:
            text = f'must be "default" where the length is not known, but is "{ordering}"'
            raise ConfigError(f"{self.name}: seq_ordering", f"{text}; see shuffle_window and sort_window")
        self.epoch, self._loaded = epoch, {}
        self._start(iter(()) if epoch is None else self._items(epoch))
        return True

    def _items(self, epoch: int) -> Iterator[Item]:
        """The sequences of the epoch, as they are used."""
        rng = np.random.RandomState(self.order_options.seed(epoch))
        entries = shuffled(self._entries(epoch), self.shuffle_window, rng)
        made = (Item(tag, self._made_of(tag, make)) for tag, make in entries)
        return sorted_in_windows(made, self.sort_window, self._length) if self.sort_window > 1 else made

    def _made_of(self, tag: str, make: Callable[[], Seq]) -> Seq:
        try:
            return make()
        except Exception as exc:
            raise blamed(f'{self.name}: sequence "{tag}"', exc) from exc

    def _length(self, item: Item) -> int:
        return len(item.seq[self.length_key or self.get_data_keys()[0]])

    def _entries(self, epoch: int) -> Iterator[Entry]:
        """Those of the epoch and of this shard, read."""
        shards, index = self.options._num_shards, self.options._shard_index
        for number, read in enumerate(self._of_epoch(epoch)):
            if number % shards == index:
                yield read()

    def _of_epoch(self, epoch: int) -> Iterator[Reading]:
        if self.per_epoch is None:
            yield from self.entries(0)
            return
        first = (epoch - 1) * self.per_epoch
        if not 0 < self._position <= first:
            self._position, self._endless = first, self._passes(first)
        for _ in range(first - self._position):  # what an epoch that ended early has left
            next(self._endless)
        self._position = first
        for _ in range(self.per_epoch):
            self._position += 1
            yield next(self._endless)

    def _passes(self, skip: int) -> Iterator[Reading]:
        """The data over and over again, without the first `skip` sequences of all passes."""
        while True:
            some = False
            for read in self.entries(skip):
                some = True
                yield read
            if not some:
                total = sum(1 for _ in self.entries(0)) if skip else 0
                if not total:
                    raise ConfigError(self.name, "no sequences")
            skip = 0 if some else skip % total

    # --- sequences ----------------------------------------------------------------------------------------------------

    def _next(self) -> Item | None:
        return next(self._stream, None)

    def epoch_lengths(self, start: int, end: int) -> None:
        """Not known in advance."""
        return None

    @property
    def num_seqs(self) -> int | float:
        """Of this epoch and shard; raises NotImplementedError where only the end tells."""
        if self._ended or self.epoch is None:
            return self._count
        if self.per_epoch is None:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known before the end")
        return len(range(self.options._shard_index, self.per_epoch, self.options._num_shards))

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return self._pull(n)

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Not known."""
        raise NotImplementedError(f"{self.name}: the number of sequences is not known")

    def get_current_seq_order(self) -> np.ndarray:
        """There is none."""
        raise NotImplementedError(f"{self.name}: sequences that come one after another have no corpus indices")
