"""Datasets whose sequences are given in the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


@dataset("StaticDataset")
class StaticDataset(Dataset):
    """Sequences from a list of dicts key -> array, all with the same keys.

    `output_dim` {key: dim or (dim, ndim)} replaces what is read off the arrays: the last axis' size, or 0 for 1-D ones.
    """

    constant = True
    constant_parts = ("data",)

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        data: Sequence[dict[str, Any]],
        target_list: Sequence[str] | None = None,
        input_dim: int | None = None,
        output_dim: dict[str, Any] | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not data:
            raise ConfigError(f"{self.name}: data", "must be a list of at least one sequence")
        self.keys = sorted(data[0], key=lambda key: (key != "data", key))
        self.first: Seq = {}
        self.data = [self._arrays(i, seq) for i, seq in enumerate(data)]
        self.target_list = None if target_list is None else list(target_list)
        self.num_outputs = {key: self._dims(key, (output_dim or {}).get(key)) for key in self.keys}
        self.num_inputs = input_dim or (self.num_outputs["data"][0] if "data" in self.keys else 0)
        self._lengths: dict[str, np.ndarray] | None = None

    def _arrays(self, index: int, seq: dict[str, Any]) -> Seq:
        if set(seq) != set(self.keys):
            raise ConfigError(
                f"{self.name}: data[{index}]", f"must have the keys {self.keys}, but has {sorted(seq)} instead"
            )
        arrays = {key: np.asarray(seq[key]) for key in self.keys}
        for key, first in self.first.items():
            array, expected = arrays[key], first.shape[1:]
            if array.ndim != first.ndim or array.shape[1:] != expected:
                raise ConfigError(
                    f'{self.name}: data[{index}]["{key}"]',
                    f"must have the shape (time, *{expected}) as data[0], but has {array.shape} instead",
                )
        self.first = self.first or arrays
        return arrays

    def _dims(self, key: str, given: ConfigValue) -> tuple[int, int]:
        ndim = self.data[0][key].ndim
        if isinstance(given, list | tuple):
            return int(given[0]), int(given[1])
        if given is not None:
            return int(given), ndim
        return (self.data[0][key].shape[-1] if ndim > 1 else 0), ndim

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of sequences given."""
        return len(self.data)

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The given arrays."""
        return [self.data[i] for i in indices]

    def corpus_lengths(self) -> dict[str, np.ndarray]:
        """Frames per key, read off the arrays once."""
        if self._lengths is None:
            self._lengths = {
                key: np.array([len(seq[key]) if seq[key].ndim else 1 for seq in self.data], np.int64)
                for key in self.keys
            }
        return self._lengths

    def corpus_index(self, tag: str) -> int:
        """The number behind "seq-"."""
        return numbered(tag, self.name, len(self.data))

    def get_target_list(self) -> list[str]:
        """The option, or all keys but "data"."""
        return super().get_target_list() if self.target_list is None else self.target_list

    def get_data_dtype(self, key: str) -> str:
        """Dtype of the arrays."""
        self._dim_ndim(key)  # refuses unknown keys
        dtype = self.data[0][key].dtype
        return "string" if dtype.kind in "SUO" else str(dtype)

    def get_data_shape(self, key: str) -> list[int | None]:
        """Shape of the arrays without time."""
        self._dim_ndim(key)
        return list(self.data[0][key].shape[1:])


def numbered(tag: str, name: str, total: float) -> int:
    """Corpus index of a tag "seq-<corpus index>"; raises ConfigError if there is no such sequence."""
    number = tag.removeprefix("seq-")
    if not number.isdecimal() or number == tag or int(number) >= total:
        raise ConfigError(name, f'no sequence has the tag "{tag}"; the tags are "seq-0", "seq-1", …')
    return int(number)
