"""What a dataset knows of its corpus, whatever the epoch: how many sequences, how long, and their names."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from returnn_lite.datasets.contents import Contents
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.tags import NumberedTags, Tags, TagTable
from returnn_lite.errors import ConfigError, did_you_mean

Seq = dict[str, np.ndarray]  # one sequence: key -> array, time first


class Corpus(Contents, ABC):
    """All sequences of a dataset, by *corpus index*: their data, lengths and tags."""

    options: BaseOptions

    @abstractmethod
    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """Number of sequences of the corpus; may be math.inf."""

    @abstractmethod
    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The data of some sequences, int64 [N] corpus indices; keys as `get_data_keys`."""

    def corpus_lengths(self) -> dict[str, np.ndarray] | None:
        """Frames of every sequence per data key, int64 [N] each; None if that is not known without loading."""
        return None

    def sort_lengths(self) -> np.ndarray | None:
        """What orders by length go by, [N]; None if unknown."""
        lengths = self.corpus_lengths()
        return next(iter(lengths.values())) if lengths else None

    @property
    def supports_seq_order_sorting(self) -> bool:
        """Whether orders by length are possible."""
        return self.options.seq_order_seq_lens_file is not None or self.sort_lengths() is not None

    def corpus_tag(self, index: int) -> str:
        """Name of a sequence."""
        return f"seq-{index}"

    def corpus_index(self, tag: str) -> int:
        """Corpus index of the (last) sequence of this name; raises ConfigError if there is none."""
        index = self.tag_table.find(tag)
        if index < 0:
            raise ConfigError(self.name, f'no sequence has the tag "{tag}"{did_you_mean(tag, self.tag_table[:1000])}')
        return index

    @cached_property
    def tag_table(self) -> Tags:
        """The tags of the corpus, ready to be looked up."""
        tags = self.get_all_tags()
        return tags if isinstance(tags, Tags) else TagTable.of(tags)

    def get_all_tags(self) -> Sequence[str]:
        """Tags of the whole corpus, in corpus order."""
        total = self.get_total_num_seqs()
        if math.isinf(total):
            raise ConfigError(self.name, "is endless, so its tags cannot be listed")
        if type(self).corpus_tag is Corpus.corpus_tag:
            return NumberedTags(int(total))
        return [self.corpus_tag(i) for i in range(int(total))]

    def get_corpus_seq(self, corpus_seq_idx: int) -> Seq:
        """The data of a sequence of the corpus."""
        return self.load_corpus_seqs(np.array([corpus_seq_idx], np.int64))[0]
