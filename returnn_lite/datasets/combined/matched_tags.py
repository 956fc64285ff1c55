"""The sequences of several datasets, matched by their tags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.options import GivenOrder
from returnn_lite.datasets.order.seq_list import read_seq_list
from returnn_lite.datasets.order.tags import Tags, TagTable, TagView
from returnn_lite.errors import ConfigError, did_you_mean


class MatchedTags:
    """Which sequence of each dataset is sequence number i: those of the same tag, or of the same line in lists of tags.

    `default` is the dataset that the sequences are named after; `seq_list_file`: one list for all, or {dataset: list}.
    """

    def __init__(self, name: str, subs: Mapping[str, Dataset], default: str, seq_list_file: ConfigValue) -> None:
        self.name, self.subs, self.default, self.seq_list_file = name, subs, default, seq_list_file
        self._indices: dict[str, np.ndarray | None] = {}  # by sub-dataset: see `corpus_indices`

    @property
    def own(self) -> Sequence[str]:
        """The names of the sequences."""
        return self.of_sub[self.default]

    @cached_property
    def of_sub(self) -> dict[str, Sequence[str]]:
        """Tags of the corpus per dataset; the same index means the same sequence."""
        if self.seq_list_file is None:
            return dict.fromkeys(self.subs, self.subs[self.default].tag_table)
        lists = self._read_lists()
        for name, tags in lists.items():
            if len(tags) != len(lists[self.default]):
                raise ConfigError(
                    f"{self.name}: seq_list_file",
                    f"the lists must be equally long, but there are {len(tags)} tags for {name}"
                    f" and {len(lists[self.default])} for {self.default}",
                )
        return lists

    def _read_lists(self) -> dict[str, Sequence[str]]:
        path, files = f"{self.name}: seq_list_file", self.seq_list_file
        if isinstance(files, Mapping):
            missing = [name for name in self.subs if name not in files]
            found = {name: read_seq_list(files[name], path) for name in self.subs if name in files}
        else:
            content = read_seq_list(files, path)
            found = content if isinstance(content, dict) else {name: content for name in self.subs}
            missing = [name for name in self.subs if name not in found]
        if missing:
            raise ConfigError(path, f"has no list for {', '.join(missing)}")
        tables = {id(tags): TagTable.of(tags) for tags in found.values()}  # one table for one list
        return {name: tables[id(found[name])] for name in self.subs}

    def check_none_is_missing(self) -> None:
        """Raises ConfigError if a dataset has fewer sequences than the one they are named after."""
        default = self.subs[self.default]
        for name, sub in self.subs.items():
            if name == self.default or not _lists_tags(sub):
                continue
            total, needed = sub.get_total_num_seqs(fast=True), default.get_total_num_seqs(fast=True)
            if total < needed:
                tags = default.tag_table
                missing = [tags[int(i)] for i in np.flatnonzero(sub.tag_table.find_all(tags) < 0)[:3]]
                raise ConfigError(
                    self.name,
                    f'dataset "{name}" is missing seqs: it has {total}, "{self.default}" has {needed};'
                    f" missing are {missing}, …",
                )

    def sub_order(self, name: str, order: np.ndarray) -> GivenOrder:
        """The order as an argument of the sub-dataset's init_seq_order: corpus indices if it has them, else tags.

        Raises ConfigError if it has no sequence of a tag.
        """
        indices = self.corpus_indices(name)
        if indices is None:
            return {"seq_list": TagView(self.of_sub[name], order)}
        wanted = indices[order]
        if len(wanted) and wanted.min() < 0:
            tag = self.of_sub[name][int(order[int(np.argmin(wanted))])]
            raise ConfigError(
                self.name,
                f'dataset "{name}" is missing seqs: it has no sequence with tag "{tag}"'
                f"{did_you_mean(tag, self.subs[name].tag_table[:1000])}",
            )
        return {"seq_order": wanted}

    def corpus_indices(self, name: str) -> np.ndarray | None:
        """For each sequence its corpus index in a sub-dataset, -1 where it is missing; None if it has no indices."""
        if name not in self._indices:
            self._indices[name] = self._found_indices(name)
        return self._indices[name]

    def _found_indices(self, name: str) -> np.ndarray | None:
        sub, tags = self.subs[name], self.of_sub[name]
        if not _lists_tags(sub):
            return None
        own = sub.tag_table
        same = tags is own and name == self.default
        return np.arange(len(own)) if same and _distinct(own) else own.find_all(tags)


def _lists_tags(sub: Dataset) -> bool:
    """Whether a dataset can list the tags of its corpus."""
    try:
        return not math.isinf(sub.get_total_num_seqs(fast=True)) and sub.have_corpus_seq_idx
    except NotImplementedError:
        return False


def _distinct(tags: Tags) -> bool:
    """Whether no tag occurs twice."""
    return bool(np.array_equal(tags.find_all(tags), np.arange(len(tags))))
