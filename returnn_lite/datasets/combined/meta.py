"""Several datasets with the same sequences, each of which gives some of the data keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.matched_tags import MatchedTags
from returnn_lite.datasets.combined.sub import EpochDataset, dataset_dict, loaded, sub_dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.seq_list import read_seq_lens
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.reading import read_text

OF_ORDER = (
    *("seq_ordering", "partition_epoch", "repeat_epoch", "fixed_random_seed", "seq_list_filter_file"),
    *("unique_seq_tags", "seq_order_seq_lens_file"),
)
DataMap = Mapping[str, tuple[str, str]]


@dataset("MetaDataset")
class MetaDataset(EpochDataset):
    """Joins datasets sequence by sequence, by their tags: `data_map` {own key: (dataset, its key)}.

    The sequences are those of `seq_list_file`, else those of the dataset that "data" comes from. The order is this
    dataset's own, or that of `seq_order_control_dataset`. `seq_lens_file` is a JSON file {tag: {key: frames}}.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        datasets: dict[str, Any],
        data_map: DataMap,
        seq_list_file: ConfigValue = None,
        seq_order_control_dataset: str | None = None,
        seq_lens_file: str | None = None,
        data_dims: ConfigDict | None = None,
        data_dtypes: ConfigValue = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if self.window != 1:
            raise ConfigError(f"{self.name}: window", f"must be 1 for MetaDataset, but is {self.window} instead")
        self.data_map = _checked_map(data_map, dataset_dict(datasets, f"{self.name}: datasets"), self.name)
        self.control = seq_order_control_dataset
        self.default = self._default_name()
        names = [name for name in datasets if name in {name for name, _ in self.data_map.values()} | {self.default}]
        self.subs = {name: sub_dataset(self, datasets[name], name) for name in names}
        self.seq_list_file, self.seq_lens_file = seq_list_file, seq_lens_file
        self.tags = MatchedTags(self.name, self.subs, self.default, seq_list_file)
        for key, (name, sub_key) in self.data_map.items():
            self._add_key(key, self.subs[name], sub_key)
        self.num_outputs.update({key: _pair(value) for key, value in (data_dims or {}).items() if key in data_map})
        if seq_list_file is None:
            self.tags.check_none_is_missing()
        self._warned = self._about_is_enough = False
        self._unread: int | None = None  # an epoch in its own order of which nothing was read yet

    def _default_name(self) -> str:
        if self.control is not None:
            if self.control not in {name for name, _ in self.data_map.values()}:
                hint = did_you_mean(self.control, [name for name, _ in self.data_map.values()])
                raise ConfigError(
                    f"{self.name}: seq_order_control_dataset", f'"{self.control}" is not a dataset of data_map{hint}'
                )
            return self.control
        if "data" not in self.data_map:
            raise ConfigError(
                f"{self.name}: data_map", 'must have the key "data" where seq_order_control_dataset is not set'
            )
        return self.data_map["data"][0]

    def _add_key(self, key: str, sub: Dataset, sub_key: str) -> None:
        if sub_key not in sub.num_outputs and sub_key not in sub.get_data_keys():
            known = sub.get_data_keys()
            raise ConfigError(
                f'{self.name}: data_map["{key}"]',
                f'{sub.name} has no key "{sub_key}"{did_you_mean(sub_key, known)}; known: {known}',
            )
        self.num_outputs[key] = sub.num_outputs[sub_key]
        if sub.labels.get(sub_key):
            self.labels[key] = sub.labels[sub_key]

    # --- which sequences there are ---

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Length of the sequence list."""
        if fast and self.seq_list_file is None:
            return int(self.subs[self.default].get_total_num_seqs(fast=True))
        return len(self.tags.own)

    def get_all_tags(self) -> Sequence[str]:
        """Tags of the dataset that the sequences are named after."""
        return self.tags.own

    # --- the epoch ---

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch in all sub-datasets; nothing happens if the same epoch was just started."""
        if self._unread is not None and self._unread == epoch and seq_list is None and seq_order is None:
            return False
        self._unread = None
        changed = super().init_seq_order(epoch, seq_list, seq_order)
        self._unread = epoch if seq_list is None and seq_order is None else None
        return changed

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        if epoch is None and seq_list is None and given is None:
            return np.empty(0, np.int64)
        by_control = self.control is not None and seq_list is None and given is None
        order = self._control_order(epoch) if by_control else super()._new_order(epoch, seq_list, given)
        if order is None:
            raise ConfigError(self.name, "needs a finite sequence list")
        for name, sub in self.subs.items():
            if not (by_control and name == self.control):
                sub.init_seq_order(epoch, **self.tags.sub_order(name, order))
        return order

    def _warn_of_own_order(self) -> None:
        """Options that were written, but have no effect, as another dataset decides the order."""
        changed = self.options.changed()
        idle = [name for name in OF_ORDER if name not in self.defaulted and changed.get(name)]
        if idle and not self._warned:
            text = f'{", ".join(idle)} have no effect with seq_order_control_dataset; set them in "{self.control}"'
            self.log.v1(f"{self.name}: warning: {text}")
        self._warned = True

    def _control_order(self, epoch: int | None) -> np.ndarray:
        self._warn_of_own_order()
        control = self.subs[self.default]
        control.init_seq_order(epoch)
        order = np.asarray(control.get_current_seq_order(), np.int64)
        total = len(self.tags.own)
        if len(order) and order.max() >= total:
            raise ConfigError(
                f"{self.name}: seq_list_file",
                f"must list the sequences of {self.default} in its order, but has only {total} of them",
            )
        return order

    def _lengths_for_order(self) -> np.ndarray | None:
        if self.options.seq_order_seq_lens_file:
            return read_seq_lens(self.options.seq_order_seq_lens_file, self.get_all_tags())
        if self.seq_lens is not None:
            return self._lens_of("data", range(len(self.get_all_tags())))
        return self._frames_of_data

    def sort_longest_first(self) -> None:
        """By what its dataset sorts by: this is for speed, so nothing is read to know it exactly."""
        self._about_is_enough = True
        super().sort_longest_first()

    @cached_property
    def _frames_of_data(self) -> np.ndarray | None:
        """Frames of "data" of every sequence, whatever its dataset sorts by; read once if they are not known."""
        sub, key = self.subs[self.default], self.data_map["data"][1]
        known = key in (sub.corpus_lengths() or {})
        if known or self._about_is_enough or not _finite(sub):
            return self.sort_lengths()
        self.log.v3(f"{self.name}: reads {sub.name} once, as orders by length go by its frames")
        sub.init_seq_order(1, **self.tags.sub_order(self.default, np.arange(len(self.tags.own))))
        lengths = np.empty(len(self.tags.own), np.int64)
        for i in range(len(lengths)):
            sub.load_seqs(i, i + 1)
            lengths[i] = sub.get_seq_length(i)[key]
        return lengths

    def sort_lengths(self) -> np.ndarray | None:
        """Frames of "data", or what its dataset sorts by."""
        sub, key = self.subs[self.default], self.data_map.get("data", ("", ""))[1]
        lengths = (sub.corpus_lengths() or {}).get(key)
        lengths = sub.sort_lengths() if lengths is None else lengths
        indices = None if lengths is None else self.tags.corpus_indices(self.default)
        return None if indices is None or lengths is None else lengths[indices]

    @cached_property
    def seq_lens(self) -> dict[str, dict[str, int]] | None:
        """The content of `seq_lens_file`."""
        if self.seq_lens_file is None:
            return None
        path = f"{self.name}: seq_lens_file"
        try:
            found = json.loads(read_text(self.seq_lens_file, path))
        except ValueError as exc:
            raise ConfigError(path, f"{self.seq_lens_file} must be JSON {{tag: {{key: frames}}}}: {exc}") from None
        if not isinstance(found, dict):
            raise ConfigError(path, f"{self.seq_lens_file} must be JSON {{tag: {{key: frames}}}}")
        return found

    def _lens_of(self, key: str, corpus: Sequence[int]) -> np.ndarray:
        tags, lens = self.get_all_tags(), self.seq_lens or {}
        try:
            return np.array([lens[tags[i]][key] for i in corpus])
        except KeyError as exc:
            raise ConfigError(f"{self.name}: seq_lens_file", f"has no length for {exc}") from None

    # --- sequences ---

    def load_epoch_seqs(self, seq_idx: Sequence[int]) -> list[Seq]:
        """Each dataset loads its keys; raises DataError if one gives another sequence."""
        self._unread = None
        found: list[Seq] = [{} for _ in seq_idx]
        for name, sub in self.subs.items():
            own = {sub_key: key for key, (of, sub_key) in self._wanted_map().items() if of == name}
            for i, seq, into in zip(seq_idx, loaded(sub, seq_idx, list(own)), found, strict=True):
                self._check_tag(name, sub, i)
                for key, (of, sub_key) in self._wanted_map().items():
                    if of == name:
                        into[key] = seq[sub_key]
        return found

    def _wanted_map(self) -> DataMap:
        if self.wanted_keys is None:
            return self.data_map
        return {key: value for key, value in self.data_map.items() if key in self.wanted_keys}

    def _check_tag(self, name: str, sub: Dataset, seq_idx: int) -> None:
        expected, tag = self.tags.of_sub[name][self.get_corpus_seq_idx(seq_idx)], sub.get_tag(seq_idx)
        if tag != expected:
            raise DataError(
                self.name, f'sequence {seq_idx} of {sub.name} must have the tag "{expected}", but has "{tag}" instead'
            )

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """The sub-datasets need not load other keys either."""
        super().limit_keys(keys)
        for name, sub in self.subs.items():
            of_it = [sub_key for of, sub_key in self._wanted_map().values() if of == name]
            sub.limit_keys(None if keys is None else of_it)

    def get_tag(self, seq_idx: int) -> str:
        """Name in the dataset that the sequences are named after."""
        return self.tags.own[self.get_corpus_seq_idx(seq_idx)]

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key, by `seq_lens_file` or the datasets."""
        self._unread = None
        if self.seq_lens is not None:
            index = [self.get_corpus_seq_idx(seq_idx)]
            return NumbersDict({key: int(self._lens_of(key, index)[0]) for key in self.get_data_keys()})
        lengths = {name: sub.get_seq_length(seq_idx) for name, sub in self.subs.items()}
        return NumbersDict({key: lengths[self.data_map[key][0]][self.data_map[key][1]] for key in self.get_data_keys()})

    def epoch_lengths(self, start: int, end: int) -> np.ndarray | None:
        """Frames of many sequences, if all datasets know theirs."""
        if self.seq_lens is not None:
            return None
        lengths = {name: sub.epoch_lengths(start, end) for name, sub in self.subs.items()}
        columns = []
        for key in self.get_data_keys():
            name, sub_key = self.data_map[key]
            known, keys = lengths[name], self.subs[name].get_data_keys()
            if known is None or sub_key not in keys:
                return None
            columns.append(known[:, keys.index(sub_key)])
        return np.stack(columns, 1)

    def get_complete_frac(self, seq_idx: int) -> float:
        """As the dataset that the sequences are named after."""
        return self.subs[self.default].get_complete_frac(seq_idx)

    def file_of(self, seq_idx: int, key: str) -> str | None:
        """As the dataset that the key comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].file_of(seq_idx, sub_key)

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch of all."""
        super().finish_epoch(free_resources)
        self._unread = None
        for sub in self.subs.values():
            sub.finish_epoch(free_resources)

    # --- what the data are ---

    def get_data_keys(self) -> list[str]:
        """The keys of data_map, sorted."""
        return sorted(self.data_map)

    def get_data_dtype(self, key: str) -> str:
        """As in the dataset it comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].get_data_dtype(sub_key)

    def is_data_sparse(self, key: str) -> bool:
        """As in the dataset it comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].is_data_sparse(sub_key)

    def get_data_shape(self, key: str) -> list[int | None]:
        """As in the dataset it comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].get_data_shape(sub_key)

    def get_data_dim(self, key: str) -> int:
        """As in the dataset it comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].get_data_dim(sub_key)

    def has_time(self, key: str) -> bool:
        """As in the dataset it comes from."""
        name, sub_key = self._of(key)
        return self.subs[name].has_time(sub_key)

    def _of(self, key: str) -> tuple[str, str]:
        self._dim_ndim(key)  # refuses unknown keys
        return self.data_map[key]


def _checked_map(data_map: ConfigValue, datasets: ConfigDict, name: str) -> dict[str, tuple[str, str]]:
    """The data map with pairs; raises ConfigError if it does not fit to the datasets."""
    path = f"{name}: data_map"
    if not isinstance(data_map, Mapping) or not data_map:
        raise ConfigError(path, f"must be a dict from key to (dataset, its key), but is {data_map!r} instead")
    for key, value in data_map.items():
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ConfigError(f'{path}["{key}"]', f"must be (dataset, its key), but is {value!r} instead")
        if value[0] not in datasets:
            hint = f"{did_you_mean(str(value[0]), datasets)}; known: {sorted(datasets)}"
            raise ConfigError(f'{path}["{key}"]', f'unknown dataset "{value[0]}"{hint}')
    return {key: (value[0], value[1]) for key, value in data_map.items()}


def _finite(sub: Dataset) -> bool:
    """Whether a dataset has an end that is known."""
    try:
        return not math.isinf(sub.get_total_num_seqs(fast=True))
    except NotImplementedError:
        return False


def _pair(value: ConfigValue) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, list | tuple) else (int(value), 1)
