"""The characters of a text file end to end, such as enwik8."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

import h5py
import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.ordering import part_of_epoch
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

HELD_OUT = 5_000_000  # bytes of the test set, and of the validation set before it
SUBSETS = ("training", "validation", "test")


@dataset("Enwik8Corpus")
class Enwik8Corpus(Dataset):
    """Pieces of `seq_len` bytes of the file enwik8 (enwik8.hdf5, enwik8.zip or enwik8 in the folder `path`).

    "classes" is "data" one byte later. The last 5 million bytes are the test set, the 5 million before them the
    validation set. With `batch_num_seqs` B, so many parallel streams go on from batch to batch. Nothing is downloaded.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        path: str,
        subset: str,
        seq_len: int,
        batch_num_seqs: int | None = None,
        subsubset: int | Sequence[int] | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if subset not in SUBSETS:
            raise ConfigError(f"{self.name}: subset", f"must be one of {', '.join(SUBSETS)}, but is {subset!r} instead")
        content = _read(path, f"{self.name}: path")
        present = np.flatnonzero(np.bincount(content, minlength=256))
        ids = np.zeros(256, np.uint8)
        ids[present] = np.arange(len(present))
        self.text = ids[_part(content, subset)]
        if subsubset is not None:
            first, last = (0, subsubset) if isinstance(subsubset, int) else subsubset
            self.text = self.text[first:last]
        self.seq_len, self.streams = seq_len, batch_num_seqs
        self.total = -(-(len(self.text) - 1) // seq_len)
        if self.streams:
            self.total -= self.total % self.streams
        if self.total <= 0:
            raise ConfigError(self.name, f"{len(self.text)} bytes are too few for sequences of {seq_len}")
        self.num_inputs = len(present)
        self.num_outputs = {"data": (len(present), 1), "classes": (len(present), 1)}
        self.labels = dict.fromkeys(("data", "classes"), [chr(byte) for byte in present])

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        if not self.streams or epoch is None or seq_list is not None or given is not None:
            return super()._new_order(epoch, seq_list, given)
        order = np.arange(self.total).reshape(self.streams, -1).T.ravel()
        return part_of_epoch(order, self.order_options, epoch)

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of pieces."""
        return self.total

    def _length(self, index: int) -> int:
        return min(self.seq_len, len(self.text) - 1 - index * self.seq_len)

    def corpus_lengths(self) -> dict[str, np.ndarray]:
        """Bytes of each piece."""
        lengths = np.full(self.total, self.seq_len)
        lengths[-1] = self._length(self.total - 1)
        return dict.fromkeys(("data", "classes"), lengths)

    def corpus_tag(self, index: int) -> str:
        """ "offset_<first byte>_<bytes>"."""
        return f"offset_{index * self.seq_len}_{self._length(index)}"

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """The bytes as classes."""
        return [self._piece(int(i)) for i in indices]

    def _piece(self, index: int) -> Seq:
        start, length = index * self.seq_len, self._length(index)
        return {"data": self.text[start : start + length], "classes": self.text[start + 1 : start + length + 1]}

    def get_data_dtype(self, key: str) -> str:
        """Bytes."""
        self._dim_ndim(key)
        return "uint8"


def _part(content: np.ndarray, subset: str) -> np.ndarray:
    ends = {"training": (0, -2 * HELD_OUT), "validation": (-2 * HELD_OUT, -HELD_OUT), "test": (-HELD_OUT, len(content))}
    start, end = ends[subset]
    return content[start:end]


def _read(path: str, option: str) -> np.ndarray:
    """The bytes of the corpus, uint8."""
    names = {name: os.path.join(path, name) for name in ("enwik8.hdf5", "enwik8.zip", "enwik8")}
    found = next((name for name, filename in names.items() if os.path.isfile(filename)), None)
    if found is None:
        raise ConfigError(option, f"has none of the files {', '.join(names)}; download enwik8.zip into {path}")
    try:
        if found == "enwik8.hdf5":
            with h5py.File(names[found], "r") as file:
                return np.asarray(next(iter(file.values())), np.uint8).ravel()
        if found == "enwik8.zip":
            with zipfile.ZipFile(names[found]) as archive, archive.open("enwik8") as member:
                return np.frombuffer(member.read(), np.uint8)
        return np.fromfile(names[found], np.uint8)
    except (OSError, KeyError, zipfile.BadZipFile, StopIteration) as exc:
        raise ConfigError(option, f"{names[found]} cannot be read: {exc}") from None
