"""Sequences from HDF files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.window import stack_window
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.file import Handles, HdfFile
from returnn_lite.log import Log


@dataset("HDFDataset")
class HDFDataset(Dataset):
    """Sequences of one or several HDF files, in order. Only the requested frames are read.

    Keys are "data" (`inputs` in the file) and the targets. `window` joins neighbour frames of "data". The options
    `cache_byte_size` and `use_cache_manager` have no effect. Raises ConfigError naming file and key for damaged files.
    """

    constant_parts = ("handles", "files", "file_starts", "lengths", "_tags")
    reuses_batches = True

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        files: Sequence[str] = (),
        use_cache_manager: bool = False,
        cache_byte_size: int = 0,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not files or isinstance(files, str) or not all(isinstance(f, str | os.PathLike) for f in files):
            raise ConfigError(f"{self.name}: files", f"must be a list of HDF files, but is {files!r} instead")
        if cache_byte_size and (self.options.partition_epoch or 1) > 1:
            raise ConfigError(f"{self.name}: partition_epoch", "to use it in HDFDataset, set cache_byte_size = 0")
        self.handles = Handles()
        self.provenance = f" in {', '.join(map(os.fspath, files))}"
        self.files = [HdfFile(os.fspath(path), self.handles) for path in files]
        self._describe(self.files[0])
        for file in self.files[1:]:
            self._check_alike(file)
        self.file_starts = np.cumsum([0] + [file.num_seqs for file in self.files])
        # What one file has more than the first is ignored.
        columns = [[file.columns.index(key) for key in self.columns] for file in self.files]
        self.lengths = np.concatenate([file.lengths[:, c] for file, c in zip(self.files, columns, strict=True)])

    def _describe(self, first: HdfFile) -> None:
        self.columns, self.streams = first.columns, {stream.key: stream for stream in first.streams}
        self.num_inputs = first.num_inputs
        self.num_outputs = dict(first.num_outputs)
        self.labels = dict(first.labels)
        self.window += bool(self.num_inputs) and self.window % 2 == 0  # the frame itself stands in the middle
        if self.window > 1 and len(self.streams["data"].shape if "data" in self.streams else ()) != 1:
            raise ConfigError(f"{self.name}: window", 'is possible only where "data" are frames of one feature axis')

    def _check_alike(self, file: HdfFile) -> None:
        """Raises ConfigError if a further file does not fit to the first."""
        if file.num_inputs != self.num_inputs:
            expected = f"(expected {self.num_inputs} got {file.num_inputs})"
            raise ConfigError(self.name, f"wrong input dimension in file {file.path} {expected}")
        for key in self.streams:
            if key not in file.by_key:
                raise ConfigError(self.name, f'the key "{key}" is missing in file {file.path}')
            if file.num_outputs[key] != self.num_outputs[key]:
                expected = f"(expected {self.num_outputs[key]} got {file.num_outputs[key]})"
                raise ConfigError(self.name, f'wrong dimensions of "{key}" in file {file.path} {expected}')
        more = sorted(set(file.by_key) - set(self.streams))
        if more:
            self.log.v2(
                f"{self.name}: the keys {more} of {file.path} are ignored, as the first file does not have them"
            )
        if self.columns[-1] not in file.columns:  # the column without data, where the first file has no targets
            self.columns = list(self.streams)
        for key, labels in file.labels.items():
            self.labels.setdefault(key, labels)

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Sequences of all files."""
        return int(self.file_starts[-1])

    def corpus_lengths(self) -> dict[str, np.ndarray]:
        """The columns of `seqLengths`."""
        return {key: self.lengths[:, column] for column, key in enumerate(self.columns)}

    @cached_property
    def _tags(self) -> TagTable:
        return TagTable(part for file in self.files for part in file.read_tags())

    def get_all_tags(self) -> Sequence[str]:
        """Tags of all files."""
        return self._tags

    def corpus_tag(self, index: int) -> str:
        """The tag stored in the file."""
        return self._tags[index]

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads neighbours in a file at once."""
        keys = [key for key in self.get_data_keys() if self.wanted_keys is None or key in self.wanted_keys]
        found: list[Seq] = [{} for _ in indices]
        by_position = np.argsort(indices, kind="stable")
        ordered = indices[by_position]
        file_of = np.searchsorted(self.file_starts, ordered, "right") - 1
        # A run goes on while the next sequence is the next one of the same file.
        breaks = np.flatnonzero((np.diff(ordered) != 1) | (np.diff(file_of) != 0)) + 1
        for run in np.split(np.arange(len(indices)), breaks) if len(indices) else ():
            file = self.files[file_of[run[0]]]
            first = int(ordered[run[0]] - self.file_starts[file_of[run[0]]])
            for key in keys:
                for position, array in zip(by_position[run], file.read(key, first, len(run)), strict=True):
                    found[position][key] = stack_window(array, self.window) if key == "data" else array
        return found

    def file_of(self, seq_idx: int, key: str) -> str:
        """The HDF file."""
        number = np.searchsorted(self.file_starts, self.get_corpus_seq_idx(seq_idx), "right") - 1
        return self.files[number].path

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch; with `free_resources` the files are closed until they are needed again."""
        super().finish_epoch(free_resources)
        if free_resources:
            self.handles.close()

    def get_data_dim(self, key: str) -> int:
        """Size of the feature axis with the window, or number of classes."""
        return super().get_data_dim(key) * (self.window if key == "data" else 1)

    def is_data_sparse(self, key: str) -> bool:
        """Whether the data are whole numbers without a feature axis."""
        return self._dim_ndim(key)[1] <= 1 and self.streams[key].dtype.kind in "iu"

    def get_data_dtype(self, key: str) -> str:
        """Dtype in the file; "string" for texts."""
        self._dim_ndim(key)  # refuses unknown keys
        dtype = self.streams[key].dtype
        return "string" if dtype.kind in "SUO" else str(dtype)

    def get_data_shape(self, key: str) -> list[int | None]:
        """Shape of a frame."""
        self._dim_ndim(key)
        shape: list[Any] = list(self.streams[key].shape)
        return [shape[0] * self.window] if key == "data" and self.window > 1 else shape
