"""`hdf_dump`: a layer that writes its source to an HDF file as the network runs."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed

from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.hdf_arrays import PACKED, BatchArray, Entry
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.vocab.create import vocab_option


@layer("hdf_dump")
class HDFDump(Layer):
    """The source; every sequence of every batch is appended to an HDF file that `HDFDataset` reads.  Shape: unchanged

    `filename`: a path. All that the network computes goes there; the file appears when the network is replaced, or as
    the process ends. With `dump_per_run` there is a file for each pass over a dataset, which appears when the pass is
    over: its name is a text with "{dataset_name}", "{epoch}", "{global_step}", or what a function of the keyword
    arguments dataset_name and epoch gives. An existing file is an error; with `extend_existing_file` it
    gets further sequences. `extra` {key: layer}: further streams, one value for all sequences where a layer has no
    batch axis. `labels` of the classes, by default those of the data key that has the same classes.

    Besides the frames, the file has the stream "seq_sizes", the lengths of all axes but the features of each sequence,
    and for each key of `extra` "<key>_seq_lens", those of all axes. With several axes, frames are flattened.
    `dump_whole_batches`: a batch is one entry, with its padding; the stream "seq_tags" names its sequences. Where a
    training packs frames of several sequences into one row, that is one entry. In a `unit`, it is all ticks that are
    written. Not possible in a training by several processes, each of which has a part of the sequences.
    """

    sources = "many"
    passes_through = True
    writes = True

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
        self.labels = list(getattr(labels, "labels", labels) or [])
        self.per_run = dump_per_run
        self.in_loop = False
        self.of_run: tuple[int, str] | None = None  # epoch and dataset of the open file
        self.files: list[HDFWriter] = []  # the open one
        weakref.finalize(self, _close, self.files)
        atexit.register(_close, self.files)  # at the latest; the finalizers run after h5py has shut down
        if callable(filename) and not dump_per_run:
            raise self.error("`filename` must be a text, but is a function; that is for `dump_per_run`")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed and (count := torch.distributed.get_world_size()) > 1:
            raise self.error(f"`hdf_dump` needs all sequences in one process, but this is one of {count} by torchrun")

    def is_recurrent(self) -> bool:
        """Outside of the training, batches keep sequences apart: an entry per sequence is what one wants."""
        return not self.training

    async def link(self, net: Linker, node: Node) -> None:
        """The layers of the further streams."""
        for key, name in self.extra.items():
            node.refs[f"extra:{key}"] = await net.ask(name)
        self.in_loop = net.inside_loop

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source."""
        if x is not None and (x.batch is None or x.time is None) and not self.in_loop:
            raise self.error(f"the source must have a batch and a time axis, but is {x} instead")
        return x

    @property
    def differs_by_step(self) -> str:
        """It writes."""
        return "writes a file"

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The source, written."""
        if self.context.config.is_true("dry_run"):
            return x
        for tensor in (x, *refs.values()):
            if tensor.beam is not None and not tensor.beam.decided:
                raise self.error("each sequence has several hypotheses; dump the output of a `decide` layer")
        inputs = BatchArray.of(self._with_time(x))
        extra = {key.removeprefix("extra:"): BatchArray.of(_ticks_as_time(t)) for key, t in refs.items()}
        writer = self._file(inputs, extra)
        if self.whole_batches:
            self._write_batch(writer, inputs, extra)
        else:
            self._write_seqs(writer, inputs, extra)
        return x

    def _with_time(self, x: Tensor) -> Tensor:
        x = _ticks_as_time(x)
        if x.spec.time is None or x.spec.batch is None:
            raise self.error(f"the source must have a batch and a time axis, but is {x.spec} instead")
        return x

    # --- writing ---

    def _tags(self, count: int) -> list[str]:
        tags = self.context.run.tags
        return [f"seq-{i}" for i in range(count)] if tags is None else list(tags)

    def _write_seqs(self, writer: HDFWriter, inputs: BatchArray, extra: Mapping[str, BatchArray]) -> None:
        count = len(inputs.values)
        tags = self._tags(count)
        tags = [PACKED.join(tags)] if count == 1 else tags
        columns = {key: array.entries(count) for key, array in extra.items()}
        for tag, entry in zip(tags, inputs.entries(count), strict=True):
            _insert(writer, tag, entry, {key: next(entries) for key, entries in columns.items()}, {})

    def _write_batch(self, writer: HDFWriter, inputs: BatchArray, extra: Mapping[str, BatchArray]) -> None:
        tags = self._tags(len(inputs.values))
        more = {key: array.whole() for key, array in extra.items()}
        _insert(writer, PACKED.join(tags), inputs.whole(), more, {"seq_tags": np.array(tags, object)})

    # --- files ---

    def _file(self, inputs: BatchArray, extra: Mapping[str, BatchArray]) -> HDFWriter:
        """The open file; a new one where there is none."""
        run = (self.context.epoch, self.context.dataset_name) if self.per_run else None
        if run != self.of_run:
            self.close()
        if not self.files:
            self.of_run = run
            dim, ndim = inputs.dims
            self.files.append(
                HDFWriter(
                    self._name(),
                    dim=dim if inputs.spec.sparse_dim is not None or inputs.has_features else None,
                    ndim=ndim,
                    labels=self.labels or self._labels_of(inputs.spec.sparse_dim),
                    extra={key: array.dims for key, array in extra.items()},
                    extend_existing_file=self.extend,
                )
            )
        return self.files[0]

    def _labels_of(self, classes: Dim | None) -> list[str]:
        """Those of the data key that has these classes."""
        extern = self.context.data_keys
        if classes is None or extern is None:
            return []
        for key in sorted(key for key, spec in extern.specs.items() if spec.sparse_dim == classes):
            found = vocab_option((extern.options.get(key) or {}).get("vocab"), key)
            if found is not None and found.num_labels == classes.size:
                return list(found.labels)
        return []

    def _name(self) -> str:
        run = {"dataset_name": self.context.dataset_name, "epoch": self.context.epoch}
        if callable(self.filename):
            name = self.filename(**run)
            if not isinstance(name, str):
                raise self.error(f"the function `filename` must return a text, but returned {name!r}")
            return name
        if not self.per_run:
            return self.filename
        run["global_step"] = self.context.global_step
        try:
            return self.filename.format(**run)
        except (KeyError, IndexError, ValueError) as exc:
            text = f'`filename` may hold {", ".join(f"{{{name}}}" for name in run)}, but is "{self.filename}"'
            raise self.error(f"{text}: {exc}") from None

    def end_run(self, *, failed: bool) -> None:
        """Completes the file of a pass; after an error there is none."""
        if not self.per_run:
            return
        if failed:
            while self.files:
                self.files.pop().discard()
        else:
            self.close()

    def close(self) -> None:
        """Completes the file."""
        _close(self.files)


def _ticks_as_time(x: Tensor) -> Tensor:
    """The axis of a loop's ticks as an ordinary one."""
    for dim in x.spec.loop:
        x = x.with_data(x.data, x.spec.leave_loop(dim))
    return x


def _insert(
    writer: HDFWriter, tag: str, entry: Entry, extra: Mapping[str, Entry], more: Mapping[str, np.ndarray]
) -> None:
    streams = {key: value.data for key, value in extra.items()}
    lengths = {f"{key}_seq_lens": value.sizes for key, value in extra.items()}
    sizes = {"sizes": entry.axes} if len(entry.axes) > 1 else {}
    writer.insert(entry.data, tag, {**streams, **lengths, **sizes, **more, "seq_sizes": entry.axes})


def _close(files: list[HDFWriter]) -> None:
    """Completes the files."""
    while files:
        files.pop().close()
