"""Sequences from pairs of numpy text files."""

from __future__ import annotations

import os
import warnings

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.casting import cast
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


@dataset("NumpyDumpDataset")
class NumpyDumpDataset(Dataset):
    """Sequence i from the text files `<prefix><i>.data<postfix>` and `<prefix><i>.targets<postfix>`.

    i goes from `start_seq` to `end_seq` (without that), or up to the last file. `num_inputs` and `num_outputs` are the
    numbers of features and classes.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        prefix: str,
        num_inputs: int,
        num_outputs: int,
        postfix: str = ".txt.gz",
        start_seq: int = 0,
        end_seq: int | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.prefix, self.postfix, self.start = prefix, postfix, start_seq
        if end_seq is None:
            end_seq = start_seq
            while os.path.exists(self._path(end_seq - start_seq, "data")):
                end_seq += 1
        if end_seq <= start_seq:
            raise ConfigError(f"{self.name}: prefix", f"file {self._path(0, 'data')} does not exist")
        self.total = end_seq - start_seq
        self.num_inputs = num_inputs
        self.num_outputs = {"data": (num_inputs, 2), "classes": (num_outputs, 1)}

    def _path(self, index: int, kind: str) -> str:
        return f"{self.prefix}{self.start + index}.{kind}{self.postfix}"

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of pairs of files."""
        return self.total

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the files; raises DataError naming the file."""
        return [{"data": self._read(int(i), "data", 2), "classes": self._read(int(i), "targets", 1)} for i in indices]

    def _read(self, index: int, kind: str, ndim: int) -> np.ndarray:
        path = self._path(index, kind)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # an empty file is refused below
                array = np.loadtxt(path, ndmin=1 if ndim == 1 else 2)
        except (OSError, ValueError) as exc:
            raise DataError(f'{self.name}: sequence "{self.corpus_tag(index)}"', f"{path}: {exc}") from None
        if ndim == 1:
            place = f'{self.name}: sequence "{self.corpus_tag(index)}"'
            return cast(array.reshape(-1), "int32", place, path)
        if array.ndim != 2 or array.shape[1] != self.num_inputs:
            raise DataError(
                f'{self.name}: sequence "{self.corpus_tag(index)}"',
                f"{path} must have {self.num_inputs} numbers a line, but its shape is {array.shape}",
            )
        made: np.ndarray = array.astype("float32")
        return made
