"""Dataset classes of configs: derived from ours by Python code that hands the options on as keywords."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.ordering import seq_order
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


class ByKeywords(Dataset):
    """All options, those of every dataset among them, are keywords of the constructor."""

    def __init__(self, **options: Any) -> None:
        base = {name: options.pop(name) for name in BaseOptions.names() if name in options}
        super().__init__(BaseOptions(**base), **options)
        for name in BaseOptions.names():  # code of configs finds them as attributes
            if name not in vars(self):
                setattr(self, name, getattr(self.options, name))

    @classmethod
    def needed_options(cls, without_default: Collection[str]) -> Collection[str]:
        """Those of the outermost constructor, which may know the others."""
        return [name for name in inspect.signature(cls.__init__).parameters if name in without_default]

    @classmethod
    def from_options(cls, base: ConfigOptions, own: ConfigOptions, log: Log | None) -> Dataset:
        """As `Dataset.from_options`; a constructor without `**kwargs` gets its own options only."""
        takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values())
        made = cls(**own, **(base if takes_all else {}))
        made.log = log or made.log
        if not takes_all:
            made.options = BaseOptions(**base)
            made.name = made.options.name
        return made


class DatasetSeq:
    """One sequence: `features` of "data", or a dict by key; `targets` of "classes", or a dict by key."""

    def __init__(
        self,
        seq_idx: int,
        features: np.ndarray | Mapping[str, np.ndarray],
        targets: np.ndarray | Mapping[str, np.ndarray] | None = None,
        seq_tag: str | None = None,
    ) -> None:
        self.seq_idx, self.seq_tag = seq_idx, seq_tag if seq_tag is not None else f"seq-{seq_idx}"
        self.features = dict(features) if isinstance(features, Mapping) else {"data": np.asarray(features)}
        if targets is None:
            targets = {}
        self.targets = dict(targets) if isinstance(targets, Mapping) else {"classes": np.asarray(targets)}
        self.arrays: Seq = {key: np.asarray(value) for key, value in {**self.features, **self.targets}.items()}

    def __repr__(self) -> str:
        return f"<DatasetSeq {self.seq_idx} {self.seq_tag!r} {sorted(self.arrays)}>"

    def get_data(self, key: str) -> np.ndarray:
        """The array of a key."""
        return self.arrays[key]

    def get_data_keys(self) -> list[str]:
        """The keys."""
        return list(self.arrays)

    @property
    def num_frames(self) -> NumbersDict:
        """Frames by key; data without time count as one."""
        return NumbersDict({key: len(array) if array.ndim else 1 for key, array in self.arrays.items()})


class CachedDataset2(ByKeywords):
    """To derive from: `_collect_single_seq(seq_idx)` gives the sequences of an epoch one after the other.

    A derived class sets `num_inputs`, `num_outputs` (and `labels`) in its constructor, which hands other options on,
    and in `init_seq_order` calls that of this class, then sets `_num_seqs`. Where that stays None, the epoch ends with
    the first None in place of a sequence. Sequences are asked for in order, each once; those before the last
    `load_seqs` are forgotten.
    """

    have_corpus_seq_idx = False

    def __init__(self, **options: Any) -> None:
        self._num_seqs: int | None = None
        self._made: dict[int, DatasetSeq | None] = {}
        self._next = 0
        super().__init__(**options)

    def _collect_single_seq(self, seq_idx: int) -> DatasetSeq | None:
        """The sequence with this index in the epoch; None behind the last one."""
        raise ConfigError(self.name, f"the dataset class {type(self).__name__} must define _collect_single_seq")

    # --- the epoch ---

    def initialize(self) -> None:
        """Checks what the constructor of the derived class has set, and starts an empty epoch."""
        outputs: ConfigValue = self.num_outputs
        if not isinstance(outputs, Mapping) or not outputs and not self.num_inputs:
            raise ConfigError(
                self.name,
                f"the constructor of {type(self).__name__} must set num_outputs, a dict key -> (dim, ndim)",
            )
        given = {**({"data": (self.num_inputs, 2)} if self.num_inputs else {}), **outputs}
        self.num_outputs = {key: _dims(value, key) for key, value in sorted(given.items())}
        super().initialize()

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Forgets the sequences of the epoch before. A derived class decides about the order."""
        self.epoch, self._made, self._next, self._num_seqs = epoch, {}, 0, None
        return True

    def get_seq_order_for_epoch(
        self,
        epoch: int | None,
        num_seqs: int,
        get_seq_len: Any = None,  # Any: a function index -> length
    ) -> np.ndarray:
        """Corpus indices of an epoch by the option `seq_ordering` and the others about order."""

        def lengths() -> np.ndarray | None:
            return None if get_seq_len is None else np.array([get_seq_len(i) for i in range(num_seqs)])

        found: np.ndarray = seq_order(self.order_options, epoch, num_seqs, lengths, self.get_all_tags)
        return found

    def _get_random_seed_for_epoch(self, epoch: int | None, num_epochs_fixed: int = 1) -> int:
        return self.order_options.seed(epoch, num_epochs_fixed)

    def sort_longest_first(self) -> None:
        """The order stays as the derived class makes it."""

    @property
    def num_seqs(self) -> int:
        """Sequences of this epoch; NotImplementedError before the end where that decides."""
        if self._num_seqs is None and self.epoch is not None:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known before the end")
        return self._num_seqs or 0

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return n < self.num_seqs if self._num_seqs is not None else self._at(n) is not None

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """The sequences of an epoch."""
        return self.num_seqs

    # --- sequences ---

    def _at(self, seq_idx: int) -> DatasetSeq | None:
        """The sequence, which is made now if it has not been; None behind the end."""
        while self._next <= seq_idx and (self._num_seqs is None or self._next < self._num_seqs):
            made = self._collect_single_seq(self._next)
            if made is None:
                self._num_seqs = self._next
                break
            self._made[self._next] = made
            self._next += 1
        return self._made.get(seq_idx)

    def _known(self, seq_idx: int) -> DatasetSeq:
        found = self._at(seq_idx)
        if found is None and seq_idx < self._next:
            raise DataError(
                self.name, f"sequence {seq_idx} is no longer available: sequences can only be read in order"
            )
        if found is None:
            raise DataError(self.name, f"sequence {seq_idx} does not exist: the epoch has {self._next}")
        missing = [key for key in self.num_outputs if key not in found.arrays]
        if missing:
            raise DataError(
                f'{self.name}: sequence "{found.seq_tag}"', f"must have {missing}, but has {sorted(found.arrays)} only"
            )
        return found

    def load_seqs(self, start: int, end: int) -> None:
        """Makes the sequences start ≤ i < end and forgets those before."""
        self._made = {i: seq for i, seq in self._made.items() if i >= start}
        self._at(end - 1)

    def _seq(self, seq_idx: int) -> Seq:
        return self._known(seq_idx).arrays

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """The sequences as `_collect_single_seq` gives them."""
        return [self._seq(i) for i in seq_idx]

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """There is no access past the order of the epoch."""
        raise NotImplementedError(f"{self.name}: sequences can only be read in the order of the epoch")

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key."""
        return self._known(seq_idx).num_frames

    def get_tag(self, seq_idx: int) -> str:
        """The tag of the sequence."""
        return str(self._known(seq_idx).seq_tag)

    def get_corpus_seq_idx(self, seq_idx: int) -> int:
        """By `get_current_seq_order`, if the derived class has it."""
        return int(self.get_current_seq_order()[seq_idx])

    def get_current_seq_order(self) -> np.ndarray:
        """Not known here; a derived class may give the corpus indices of the epoch."""
        raise NotImplementedError(f"{self.name}: has no corpus indices")


def _dims(value: ConfigValue, key: str) -> ConfigValue:
    """(dim, ndim) of an entry of `num_outputs`, which may be dim alone."""
    if isinstance(value, int):
        return (value, 2 if key == "data" else 1)
    return value if isinstance(value, dict) else tuple(value)
