"""HDF files with one array per sequence and stream, and triplets of such sequences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import h5py
import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.casting import cast
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.hdf.file import Handles, text_of
from returnn_lite.log import Log

FRAMES, SPARSE, SEGMENTS = "feature_sequence", "sparse", "segment_alignment"
PARSERS = (FRAMES, SPARSE, SEGMENTS)


@dataset("NextGenHDFDataset")
class NextGenHDFDataset(Dataset):
    """Sequences of HDF files with `seq_names` and `streams/<stream>/data/<sequence>` ("/" in names is a backslash).

    All streams are keys, and "data" is the stream `input_stream_name`. What a stream holds says its attribute `parser`:
    "feature_sequence" (frames), "sparse" (classes), "segment_alignment" (rows class, frames; read as class and end of
    segment of each frame).
    """

    constant_parts = ("handles", "tags")

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        input_stream_name: str,
        files: Sequence[str],
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if not files or isinstance(files, str):
            raise ConfigError(f"{self.name}: files", f"must be a list of HDF files, but is {files!r} instead")
        self.input_stream, self.files, self.handles = input_stream_name, list(files), Handles()
        self.parsers: dict[str, str] = {}
        tables = [self._describe(path) for path in self.files]
        self.starts = np.cumsum([0] + [len(names) for names in tables])
        self.tags = TagTable.of(name for names in tables for name in names)
        if input_stream_name not in self.parsers:
            hint = f"{did_you_mean(input_stream_name, self.parsers)}; known: {sorted(self.parsers)}"
            raise ConfigError(f"{self.name}: input_stream_name", f'unknown stream "{input_stream_name}"{hint}')
        self.num_outputs["data"] = self.num_outputs[input_stream_name]
        self.num_inputs = self.num_outputs["data"][0]

    def _describe(self, path: str) -> list[str]:
        """Reads what a file holds; returns the names of its sequences."""
        with self.handles.open(path) as file:
            for name in ("seq_names", "streams"):
                if name not in file:
                    raise ConfigError(f"{path}: {name}", "missing")
            names = [text_of(name) for name in file["seq_names"][()]]
            found = {name: self._dims(group, f"{path}: streams/{name}") for name, group in file["streams"].items()}
            for name, dims in found.items():
                if self.num_outputs.setdefault(name, dims) != dims:
                    raise ConfigError(
                        f"{path}: streams/{name}",
                        f"must have the dims {self.num_outputs[name]}, but has {dims} instead",
                    )
        return names

    def _dims(self, group: h5py.Group, where: str) -> tuple[int, int]:
        parser = text_of(group.attrs["parser"]) if "parser" in group.attrs else ""
        if parser not in PARSERS:
            raise ConfigError(where, f'the attribute "parser" must be one of {PARSERS}, but is {parser!r} instead')
        self.parsers[group.name.split("/")[-1]] = parser
        arrays = group.get("data")
        if not isinstance(arrays, h5py.Group) or not len(arrays):
            raise ConfigError(where, 'must have a group "data" with sequences')
        if parser == FRAMES:
            return int(next(iter(arrays.values())).shape[-1]), 2
        if "feature_names" not in group:
            raise ConfigError(where, 'must have the list "feature_names"')
        labels = [text_of(name) for name in group["feature_names"][()].ravel()]
        self.labels[group.name.split("/")[-1]] = labels
        return len(labels), 1

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Sequences of all files."""
        return len(self.tags)

    def get_all_tags(self) -> TagTable:
        """Names of all sequences."""
        return self.tags

    def corpus_tag(self, index: int) -> str:
        """Name in the file."""
        return self.tags[index]

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(self._array(i, self.input_stream)) for i in range(len(self.tags))], np.int64)

    def sort_lengths(self) -> np.ndarray:
        """Entries of the input stream."""
        return self._lengths

    def _array(self, index: int, stream: str) -> h5py.Dataset:
        path = self.files[int(np.searchsorted(self.starts, index, "right")) - 1]
        name = self.tags[index].replace("/", "\\")
        with self.handles.open(path) as file:
            group = file["streams"][stream]["data"]
            if name not in group:
                raise DataError(f'{self.name}: sequence "{self.tags[index]}"', f'{path} has no stream "{stream}" of it')
            return group[name]

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the arrays."""
        return [self.streams_of(int(i)) for i in indices]

    def streams_of(self, index: int) -> Seq:
        """All streams of a sequence, and "data"."""
        seq = {stream: self._read(index, stream) for stream in self.parsers}
        return {**seq, "data": seq[self.input_stream]}

    def _read(self, index: int, stream: str) -> np.ndarray:
        parser = self.parsers[stream]
        try:
            array = np.asarray(self._array(index, stream)[()])
        except OSError as exc:
            raise DataError(
                f'{self.name}: sequence "{self.tags[index]}"', f'"{stream}" cannot be read: {exc}'
            ) from None
        if array.ndim != (1 if parser == SPARSE else 2):
            raise DataError(
                f'{self.name}: sequence "{self.tags[index]}"',
                f'"{stream}" does not match the parser {parser}: its shape is {array.shape}',
            )
        if parser == FRAMES:
            return array.astype("float32")
        place = f'{self.name}: sequence "{self.tags[index]}"'
        array = cast(array, "int64", place, f'"{stream}"')
        return cast(array if parser == SPARSE else aligned(array), "int32", place, f'"{stream}"')

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch; with `free_resources` the files are closed until they are needed again."""
        super().finish_epoch(free_resources)
        if free_resources:
            self.handles.close()


def aligned(segments: np.ndarray) -> np.ndarray:
    """Rows (class, frames) -> class and end of segment (0 or 1) of each frame in turn, (2 * frames,)."""
    classes, lengths = segments[:, 0].astype(np.int64), segments[:, 1].astype(np.int64)
    ends = np.zeros(int(lengths.sum()), np.int64)
    ends[np.cumsum(lengths)[lengths > 0] - 1] = 1
    return np.stack([np.repeat(classes, lengths), ends], 1).ravel()


@dataset("SiameseHDFDataset")
class SiameseHDFDataset(NextGenHDFDataset):
    """Triplets: a sequence, a random one with the same label, a random one with a different label.

    Labels are the first entry of the stream `seq_label_stream`. `class_distribution` (npz, arr_0
    [classes, classes]) holds the probabilities of the other class by the class. Keys: <stream>_0, _1, _2,
    <label stream>_all, "data".
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        input_stream_name: str,
        files: Sequence[str],
        seq_label_stream: str = "words",
        class_distribution: str | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, input_stream_name=input_stream_name, files=files, log=log)
        self.label_stream = seq_label_stream
        if seq_label_stream not in self.parsers:
            hint = f"{did_you_mean(seq_label_stream, self.parsers)}; known: {sorted(self.parsers)}"
            raise ConfigError(f"{self.name}: seq_label_stream", f'unknown stream "{seq_label_stream}"{hint}')
        self.distribution = None if class_distribution is None else self._read_distribution(class_distribution)
        streams = {stream: self.num_outputs[stream] for stream in self.parsers}
        self.num_outputs = {f"{stream}_{i}": dims for stream, dims in streams.items() for i in range(3)}
        self.num_outputs[f"{seq_label_stream}_all"] = streams[seq_label_stream]
        self.num_outputs["data"] = streams[input_stream_name]
        self.labels = {f"{s}_{i}": labels for s, labels in self.labels.items() for i in range(3)}
        self.triplets = np.empty((0, 3), np.int64)

    def _read_distribution(self, filename: str) -> np.ndarray:
        try:
            with np.load(filename) as npz:
                return np.asarray(npz["arr_0"])
        except (OSError, KeyError, ValueError) as exc:
            raise ConfigError(f"{self.name}: class_distribution", f"{filename} cannot be read: {exc}") from None

    @cached_property
    def _classes(self) -> np.ndarray:
        return np.array([int(self._read(i, self.label_stream)[0]) for i in range(len(self.tags))])

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        order = super()._new_order(epoch, seq_list, given)
        if order is not None and len(order):
            rng = np.random.RandomState(self.order_options.seed(epoch))
            self.triplets = np.zeros((len(self.tags), 3), np.int64)
            for i in range(len(self.tags)):
                self.triplets[i] = i, self._same(i, rng), self._other(i, rng)
        return order

    def _same(self, index: int, rng: np.random.RandomState) -> int:
        found = np.flatnonzero(self._classes == self._classes[index])
        found = found[found != index]
        return int(rng.choice(found)) if len(found) else index

    def _other(self, index: int, rng: np.random.RandomState) -> int:
        own, present = self._classes[index], np.unique(self._classes)
        others = present[present != own]
        if not len(others):
            raise ConfigError(f"{self.name}: seq_label_stream", "must have at least two classes")
        weights = None
        if self.distribution is not None:
            weights = self.distribution[own, others]
            weights = weights / weights.sum() if weights.sum() else None
        return int(rng.choice(np.flatnonzero(self._classes == rng.choice(others, p=weights))))

    def streams_of(self, index: int) -> Seq:
        """The streams of the triplet."""
        parts = [{stream: self._read(int(i), stream) for stream in self.parsers} for i in self.triplets[index]]
        seq = {f"{stream}_{i}": part[stream] for stream in self.parsers for i, part in enumerate(parts)}
        seq[f"{self.label_stream}_all"] = np.concatenate([part[self.label_stream] for part in parts])
        return {**seq, "data": seq[f"{self.input_stream}_0"]}
