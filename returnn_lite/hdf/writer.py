"""Writing HDF files of network outputs, as `HDFDataset` reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.errors import ConfigError
from returnn_lite.hdf.file import Handles, HdfFile
from returnn_lite.hdf.growing_file import TEXT, GrowingFile, write_labels

ExtraDims = Mapping[str, tuple[int, int]]
Lengths = Sequence[int] | np.ndarray


class HDFWriter:
    """Collects sequences in an HDF file, which appears under its name when it is closed.

    `dim` and `ndim` describe the data (ndim with time, without batch): (4, 2) frames of 4 numbers, (9, 1) indices of 9
    classes, (None, 2) numbers over two axes, without features. `extra`: {key: (dim, ndim)} of further streams; what is
    not given is read off the arrays. `extra_labels`: {key: names of the classes}. With several axes before the feature
    axis, these are flattened to one and their lengths are kept in the extra key "sizes".
    `compression` of the arrays: "gzip" or "lzf".
    As a context manager it leaves no file behind after an error. Raises ConfigError if the file exists already; with
    `extend_existing_file` the sequences are added to those in it.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        dim: int | None,
        ndim: int | None = None,
        labels: Sequence[str] | None = None,
        extra: ExtraDims | None = None,
        extra_labels: Mapping[str, Sequence[str]] | None = None,
        extend_existing_file: bool = False,
        compression: str | None = None,
    ):
        self.filename = os.fspath(filename)
        self.dim, self.has_features = dim, bool(dim) and ndim != 1
        self.extra = dict(extra or {})
        self.labels = list(labels or [])
        self.extra_labels = {key: list(names) for key, names in (extra_labels or {}).items()}
        if self.labels and len(self.labels) != dim:
            raise ConfigError(self.filename, f"got {len(self.labels)} labels for {dim} classes")
        self._growing = GrowingFile(self.filename, extend=extend_existing_file, compression=compression)
        self._lengths: list[dict[str, int]] = []
        self._tags: list[str] = []
        if self._growing.extends:
            try:
                self._take_over()
            except BaseException:
                self.discard()
                raise

    def _take_over(self) -> None:
        """Reads what describes the sequences in the file, and takes it out: it is written anew in the end."""
        handles = Handles()
        found = HdfFile(self.filename, handles)
        own, old = (self.dim or 1, 2 if self.has_features else 1), found.num_outputs.get("data")
        if old != own:
            raise ConfigError(self.filename, f"must hold data of (dim, ndim) {own} to be extended, but holds {old}")
        keys = ["inputs", *(key for key in found.by_key if key != "data")]
        self._lengths = [dict(zip(keys, row, strict=False)) for row in found.lengths.tolist()]
        self._tags = [tag.decode("utf8") for part in found.read_tags() for tag in part]
        self.extra |= {key: found.num_outputs[key] for key in keys[1:]}
        self.labels = self.labels or found.labels.get("data", [])
        self.extra_labels = {**{key: found.labels[key] for key in keys[1:] if key in found.labels}, **self.extra_labels}
        handles.close()
        for name in ("seqLengths", "seqTags", "labels", "targets/labels", "targets/size"):
            if name in self._growing.file:
                del self._growing.file[name]

    def __enter__(self) -> HDFWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    # --- sequences ---

    def insert_batch(
        self,
        inputs: np.ndarray,
        seq_len: Lengths | Mapping[int, Lengths],
        seq_tag: Sequence[str],
        extra: Mapping[str, np.ndarray] | None = None,
        extra_seq_len: Mapping[str, Lengths] | None = None,
    ) -> None:
        """Appends a batch. `inputs` [B, T, (…,) (D)]; `seq_len` lengths [B], or {axis: lengths [B]} where axis 0 is T.

        `extra` {key: [B, …]}, cut to `extra_seq_len` {key: lengths [B]} where that is given.
        """
        if len(seq_tag) != len(inputs):
            raise ConfigError(self.filename, f"got {len(seq_tag)} tags for {len(inputs)} sequences")
        lengths = dict(seq_len) if isinstance(seq_len, Mapping) else {0: seq_len}
        for i, tag in enumerate(seq_tag):
            axes = range(max(lengths, default=-1) + 1)
            parts = tuple(slice(int(lengths[axis][i])) if axis in lengths else slice(None) for axis in axes)
            more = {}
            for key, values in (extra or {}).items():
                limits = (extra_seq_len or {}).get(key)
                more[key] = values[i] if limits is None else values[i][: int(limits[i])]
            self.insert(inputs[i][parts], tag, more)

    def insert(self, data: np.ndarray, tag: str, extra: Mapping[str, np.ndarray] | None = None) -> None:
        """Appends one sequence, without padding; `data` as announced by dim and ndim."""
        more = {key: np.asarray(value) for key, value in (extra or {}).items()}
        feature = data.shape[-1:] if self.has_features and data.ndim > 1 else ()
        axes = data.shape[: data.ndim - len(feature)]
        if feature and self.dim and feature != (self.dim,):
            raise ConfigError(
                self.filename, f'sequence "{tag}" must have frames of {self.dim} numbers, but has {feature[0]}'
            )
        if len(axes) > 1:
            more["sizes"] = np.array(axes, np.int32)
        more = {key: np.atleast_1d(value) for key, value in more.items()}
        for key in more:
            self.extra.setdefault(key, (1 if more[key].ndim == 1 else more[key].shape[-1], more[key].ndim))
        if self._lengths and set(more) != set(self._lengths[0]) - {"inputs"}:
            raise ConfigError(
                self.filename, f'sequence "{tag}" must have the extra keys of the first, but has {sorted(more)}'
            )
        data = data.reshape((-1, *feature))
        self._growing.append("inputs", data)
        for key, value in more.items():
            self._growing.append(f"targets/data/{key}", value)
        self._lengths.append({"inputs": len(data), **{key: len(value) for key, value in more.items()}})
        self._tags.append(tag)

    # --- the end ---

    def close(self) -> None:
        """Completes the file and gives it its name. Raises ConfigError if a file of this name is there by now."""
        if not self._growing.is_open:
            return
        try:
            if not self._tags:
                self._growing.append("inputs", np.zeros((0, self.dim or 1) if self.has_features else (0,), np.float32))
            self._growing.flush()
            self._write_descriptions()
        except Exception:
            self._growing.check()
            self.discard()
            raise
        self._growing.publish()

    def discard(self) -> None:
        """Gives up: no file appears."""
        self._growing.discard()

    def _write_descriptions(self) -> None:
        file, keys = self._growing.file, sorted(self.extra)
        for key, names in self.extra_labels.items():
            if key in self.extra and names != ["dummy-label"] and len(names) != self.extra[key][0]:
                raise ConfigError(self.filename, f'"{key}" has {len(names)} labels for {self.extra[key][0]} classes')
        columns = ["inputs", *keys]
        lengths = np.array([[seq.get(key, 0) for key in columns] for seq in self._lengths], np.int32)
        lengths = lengths.reshape(-1, len(columns))
        if not keys:  # there is a column for targets in any case
            lengths = np.pad(lengths, ((0, 0), (0, 1)))
        file.create_dataset("seqLengths", data=lengths, maxshape=(None, lengths.shape[1]))
        file.create_dataset("seqTags", data=np.array(self._tags, object), dtype=TEXT, maxshape=(None,))
        write_labels(file, "labels", self.labels)
        for key in keys:
            write_labels(file, f"targets/labels/{key}", self.extra_labels.get(key) or ["dummy-label"])
            file.require_group("targets/size").attrs[key] = np.array(self.extra[key], np.int64)
        numbers = {
            "numTimesteps": file["inputs"].shape[0],
            "inputPattSize": self.dim or 1,
            "numDims": 1,
            "numLabels": self.dim or 1,
            "numSeqs": len(self._tags),
        }
        for name, number in numbers.items():
            file.attrs[name] = np.int64(number)
