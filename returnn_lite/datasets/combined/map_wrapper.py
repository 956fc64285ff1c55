"""Datasets from objects with `__len__` and `__getitem__`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import NumberedTags
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.typed_keys import TypedKeys
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


class MapDatasetBase:
    """To derive own datasets from, which need `__len__` and `__getitem__`; other classes may have these methods, too.

    `data_types` {key: options of its tensor}. What raises NotImplementedError here counts as not there.
    """

    def __init__(self, data_types: Mapping[str, ConfigDict] | None = None):
        self.data_types = dict(data_types or {})

    def __len__(self) -> int:
        """Number of sequences."""
        raise NotImplementedError

    def __getitem__(self, seq_idx: int) -> Mapping[str, Any]:
        """The arrays of a sequence by key."""
        raise NotImplementedError

    def get_seq_len(self, seq_idx: int) -> float:
        """What orders by length go by."""
        raise NotImplementedError

    def get_seq_tag(self, seq_idx: int) -> str:
        """Name of a sequence."""
        return f"seq-{seq_idx}"

    def get_seq_order(self, epoch: int | None = None) -> Sequence[int]:
        """The sequences of an epoch, in place of all that the options say about order and partition."""
        raise NotImplementedError


class FromList(MapDatasetBase):
    """Sequences from a list of dicts key -> array; `sort_data_key` names the key whose length is used for sorting."""

    def __init__(
        self,
        data_list: Sequence[ConfigDict],
        sort_data_key: str | None = None,
        data_types: Mapping[str, ConfigDict] | None = None,
    ):
        super().__init__(data_types)
        self.data_list, self.sort_data_key = data_list, sort_data_key

    def __len__(self) -> int:
        return len(self.data_list)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.data_list[index]

    def get_seq_len(self, seq_idx: int) -> int:
        """Frames of the key that was named for it."""
        if self.sort_data_key is None:
            raise NotImplementedError
        return len(self.data_list[seq_idx][self.sort_data_key])


@dataset("MapDatasetWrapper")
class MapDatasetWrapper(TypedKeys):
    """Wraps an object with `__len__`, `__getitem__(i) -> {key: array}` and `data_types` {key: options of its tensor}.

    `map_dataset` is the object, or a class or function that makes it. Orders by length need its `get_seq_len(i)`.
    """

    def __init__(self, base: BaseOptions | None = None, *, map_dataset: ConfigValue, log: Log | None = None):
        super().__init__(base, log=log)
        made = map_dataset() if callable(map_dataset) else map_dataset
        if isinstance(made, str) or not hasattr(made, "__getitem__") or not hasattr(made, "__len__"):
            raise ConfigError(
                f"{self.name}: map_dataset", f"must have `__len__` and `__getitem__`, but is {made!r} instead"
            )
        self.map = made
        self.set_types(getattr(made, "data_types", None), f"{self.name}: map_dataset.data_types")
        self._sort_lengths: np.ndarray | None = None

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """`len(map_dataset)`."""
        return len(self.map)

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """`map_dataset[i]`."""
        return [self._checked(int(i), self.map[int(i)]) for i in indices]

    def _checked(self, index: int, seq: ConfigDict) -> Seq:
        if not isinstance(seq, Mapping):
            raise DataError(
                f'{self.name}: sequence "{self.corpus_tag(index)}"', f"must be a dict of arrays, but is {seq!r} instead"
            )
        missing = [key for key in self.types if key not in seq]
        if missing:
            raise DataError(
                f'{self.name}: sequence "{self.corpus_tag(index)}"', f"has no {missing}, only {sorted(seq)}"
            )
        return {key: np.asarray(seq[key]) for key in self.types}

    def sort_lengths(self) -> np.ndarray | None:
        """By `get_seq_len`, asked once."""
        get = getattr(self.map, "get_seq_len", None)
        if get is None:
            return None
        if self._sort_lengths is None:
            try:
                self._sort_lengths = np.fromiter((get(i) for i in range(len(self.map))), np.float64)
            except NotImplementedError:
                return None
        return self._sort_lengths

    def corpus_tag(self, index: int) -> str:
        """By `get_seq_tag`, else "seq-<i>"."""
        get = getattr(self.map, "get_seq_tag", None)
        return super().corpus_tag(index) if get is None else str(get(index))

    def get_all_tags(self) -> Sequence[str]:
        """Tags of all sequences."""
        own = getattr(type(self.map), "get_seq_tag", None)
        numbered = own is MapDatasetBase.get_seq_tag or not hasattr(self.map, "get_seq_tag")
        return NumberedTags(len(self.map)) if numbered else super().get_all_tags()

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        own: Callable[[int], Sequence[int]] | None = getattr(self.map, "get_seq_order", None)
        if own is None or seq_list is not None or given is not None or epoch is None:
            return super()._new_order(epoch, seq_list, given)
        try:
            given = own(epoch)
        except NotImplementedError:
            pass
        return super()._new_order(epoch, None, given)


@dataset("FromListDataset")
class FromListDataset(MapDatasetWrapper):
    """Sequences from a list of dicts key -> array; `sort_data_key` names the key whose length is used for sorting."""

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        data_list: Sequence[ConfigDict],
        sort_data_key: str | None = None,
        data_types: Mapping[str, ConfigDict],
        log: Log | None = None,
    ):
        super().__init__(base, map_dataset=FromList(data_list, sort_data_key, data_types), log=log)
