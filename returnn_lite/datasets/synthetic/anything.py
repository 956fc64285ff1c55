"""Zeros of any shape, for keys that must exist but have no data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.config_value import ConfigDict
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.typed_keys import TypedKeys, shape_of_options
from returnn_lite.log import Log


@dataset("AnythingDataset")
class AnythingDataset(TypedKeys):
    """One frame of zeros per key of `data_keys` {key: tensor options}, for any tag; endless unless a list is given.

    Meant as part of a MetaDataset. The first key is the input.
    """

    have_corpus_seq_idx = False

    def __init__(self, base: BaseOptions | None = None, *, data_keys: Mapping[str, ConfigDict], log: Log | None = None):
        super().__init__(base, log=log)
        self.set_types(data_keys, f"{self.name}: data_keys")
        self.num_inputs = next(iter(self.num_outputs.values()))[0]
        self.given_tags: Sequence[str] | None = None

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        self.given_tags = seq_list
        if seq_list is not None:
            return np.arange(len(seq_list))
        if given is not None:
            return np.asarray(given, np.int64)
        return np.empty(0, np.int64) if epoch is None else None

    def get_total_num_seqs(self, *, fast: bool = False) -> float:
        """Without end."""
        return math.inf

    def get_tag(self, seq_idx: int) -> str:
        """The given one, or "seq-<i>"."""
        index = self.get_corpus_seq_idx(seq_idx)
        return self.corpus_tag(index) if self.given_tags is None else self.given_tags[index]

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Zeros."""
        dtypes = {key: "str" if self.is_text(key) else self.get_data_dtype(key) for key in self.types}
        zeros = {key: np.zeros(self._shape(key), dtype) for key, dtype in dtypes.items()}  # texts are empty
        return [dict(zeros) for _ in indices]

    def _shape(self, key: str) -> list[int]:
        return [1 if size is None else size for size in shape_of_options(self.types[key])]

    def get_target_list(self) -> list[str]:
        """All keys but the first."""
        return self.get_data_keys()[1:]
