"""`hdf_dump`: a layer that writes its source to an HDF file as the network runs."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite.datasets.hdf.writer import HDFWriter
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor

PACKED = "<->"  # between the tags of one row


@layer("hdf_dump")
class HDFDump(Layer):
    """The source; every sequence of every batch is appended to an HDF file that `HDFDataset` reads.  Shape: unchanged

    `filename`: a path, or a function of the run options if `dump_per_run`. `extra` {key: layer}: further streams. The
    file appears when the network is not needed any more, at the latest as the process ends; with `dump_per_run` each
    time the epoch changes, and its name may hold "{epoch}" and "{global_step}". A file that is there already is an
    error; with `extend_existing_file` it gets further sequences. `dump_whole_batches`: the padding is written too.
    Where a training packs frames of several sequences into one row, that is one entry.
    """

    sources = "many"

    def __init__(
        self,
        *,
        filename: str | Callable[..., str],
        extra: Mapping[str, str] | None = None,
        dump_whole_batches: bool = False,
        labels: Sequence[str] | None = None,
        extend_existing_file: bool = False,
        dump_per_run: bool = False,
    ) -> None:
        super().__init__()
        self.filename, self.extend = filename, extend_existing_file
        self.extra = dict(extra or {})
        self.whole_batches = dump_whole_batches
        self.labels = list(labels or [])
        self.per_run = dump_per_run
        self.run_key: Any = None
        self.files: list[HDFWriter] = []  # the open one
        weakref.finalize(self, _close, self.files)
        atexit.register(_close, self.files)  # at the latest; the finalizers run after h5py has shut down

    def is_recurrent(self) -> bool:
        """Outside of the training, batches keep sequences apart: an entry per sequence is what one wants."""
        return not self.training

    def link(self, net: Any, node: Any) -> None:
        """The layers of the further streams."""
        for key, name in self.extra.items():
            node.refs[f"extra:{key}"] = net.get(name)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source."""
        if x is not None and (x.batch is None or x.time is None):
            raise self.error(f"the source must have a batch and a time axis, but is {x} instead")
        return x

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The source, written."""
        if self.context.config.is_true("dry_run"):
            return x
        data, lengths = self._arrays(x)
        more = {key.removeprefix("extra:"): self._arrays(t) for key, t in refs.items()}
        tags = list(self.context.run.get("tags") or (f"seq-{i}" for i in range(len(data))))
        if len(data) == 1:
            tags = [PACKED.join(tags)]
        ends = {key: ends[0] for key, (_, ends) in more.items() if 0 in ends}
        self._file(x.spec).insert_batch(data, lengths, tags, {k: v for k, (v, _) in more.items()}, ends)
        return x

    def _arrays(self, x: Tensor) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Batch first, then time, features last; and the lengths by axis, counted without batch."""
        spec = x.spec
        front = [i for i in (spec.batch, spec.time) if i is not None]
        last = [spec.feature] if spec.feature is not None and spec.feature not in front else []
        x = x.permuted((*front, *(i for i in range(spec.rank) if i not in front and i not in last), *last))
        dynamic = {i - 1: d for i, d in enumerate(x.spec.dims) if d.dynamic}
        lengths = {} if self.whole_batches else {i: x.length(d).values.cpu().numpy() for i, d in dynamic.items()}
        return x.data.detach().cpu().numpy(), lengths

    def _file(self, spec: Spec) -> HDFWriter:
        """The open file; a new one when the run changes."""
        key = self.context.epoch if self.per_run else "process"
        if not self.files or key != self.run_key:
            _close(self.files)
            self.run_key = key
            options = {"labels": self.labels, "extend_existing_file": self.extend}
            self.files.append(HDFWriter(self._name(), dim=spec.dim, ndim=1 if spec.sparse else 2, **options))
        return self.files[0]

    def _name(self) -> str:
        options = {"epoch": self.context.epoch, "global_step": self.context.global_step}
        if callable(self.filename):
            return self.filename(**options)
        return self.filename.format(**options) if self.per_run else self.filename

    def close(self) -> None:
        """Completes the file."""
        _close(self.files)


def _close(files: list[HDFWriter]) -> None:
    """Completes the files."""
    while files:
        files.pop().close()
