"""Task `forward`: the outputs of a network for a whole dataset, to an HDF file or to a function of the config."""

import os
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.config.config_code import check_arguments
from returnn_lite.datasets import Dataset
from returnn_lite.engine import data
from returnn_lite.engine.batch_split import parts_that_fit
from returnn_lite.engine.log_form import Pass
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.setup import load_network
from returnn_lite.engine.step import forward_batch
from returnn_lite.engine.step_meter import step_meter
from returnn_lite.engine.tasks.hypotheses import unpadded
from returnn_lite.errors import ConfigError
from returnn_lite.frontend.core_values import MarkedOutput, Sequences
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.tensor import Tensor as NamedTensor
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.log import Log
from returnn_lite.tensor import Tensor

Outputs = dict[str, Tensor]


def forward_task(config: Config, log: Log) -> None:
    """Hands the outputs for the `forward_data` (or `eval`) sequences on, padding removed; see `Sink`."""
    dataset = data.named_dataset(config, "forward_data", log)
    data.complete_extern_data(config, [dataset])
    layer = config.value("forward_output_layer", "output")
    search = config.is_true("forward_use_search")
    loaded = load_network(config, log, task="forward", search=search, eval=False, extra_layers=(layer,))
    net, device, epoch = loaded.net, loaded.device, loaded.epoch
    batching = data.forward_batching(config, net)
    sink = open_sink(config, log, net, dataset, epoch)
    if config.typed_value("get_model") is not None and config.is_true("sort_dataset", True):
        dataset.sort_longest_first()
    dataset.init_seq_order(epoch=epoch)
    loader = data.load_batches(dataset, batching, net, config)
    what = Pass("forward", epoch, dataset.name, dataset.known_num_seqs)
    meter = step_meter(config, loaded.source.form, what, log, net)
    splits, run = (
        config.is_true("forward_auto_split_batch_on_oom"),
        partial(forward_batch, net, device=device, wanted=[layer]),
    )
    with sink, torch.no_grad(), net.running_over(dataset.name):
        for step, batch in enumerate(loader):
            for part in parts_that_fit(batch, run, splits=splits, config=config, log=log):
                sink.write(part[1].asked(layer, for_callback=isinstance(sink, ToCallback)), part[0].tags)
            meter.end_step()
            meter.progress.step_line(step, {}, meter.sizes(batch, device), batch.complete)
    meter.finish(loader.wait_time)


class Sink(Protocol):
    """Takes the outputs of all batches, of which the first is the one that was asked for."""

    def write(self, outputs: Outputs, tags: list[str]) -> None:
        """Takes those of a batch."""

    def __enter__(self) -> Any:
        """Begins."""

    def __exit__(self, kind: Any, error: Any, trace: TracebackType | None) -> None:
        """Ends, after an error or well."""


def open_sink(config: Config, log: Log, net: Model, dataset: Dataset, epoch: int) -> Sink:
    """The `forward_callback` of the config if there is one, else an HDF file."""
    callback = config.typed_value("forward_callback")
    if callback is not None:
        return ToCallback(callback, net)
    filename = output_filename(config, epoch)
    log.v2(f"Forwarding to HDF file: {filename}")
    return ToHDF(filename, net, dataset, log)


# --- to a file --------------------------------------------------------------------------------------------------------


class ToHDF:
    """An HDF file with an entry per sequence: the first output as data, the others as further streams."""

    def __init__(self, filename: str, net: Model, dataset: Dataset, log: Log) -> None:
        self.filename, self.net, self.dataset, self.log = filename, net, dataset, log
        self.writer: HDFWriter | None = None

    def __enter__(self) -> "ToHDF":
        return self

    def __exit__(self, kind: Any, error: Any, trace: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.__exit__(kind, error, trace)
        elif error is None:
            raise ConfigError("eval", "must have sequences to forward, but has none")

    def write(self, outputs: Outputs, tags: list[str]) -> None:
        """Appends one entry per sequence: frames of all axes but the feature axis, in row-major order."""
        main, *more = outputs
        if self.writer is None:
            self.writer = self._open(outputs[main])
        rows = {name: entries(output, name) for name, output in outputs.items()}
        for i, tag in enumerate(tags):
            self.writer.insert(rows[main][i], tag, {name: rows[name][i] for name in more})

    def _open(self, output: Tensor) -> HDFWriter:
        """The file; labels are those of the default target if there are as many as the output has classes."""
        spec = output.spec
        self.log.v3(f"Forward output: {spec}")
        labels = self.dataset.labels.get(self.net.extern_data.default_target)
        same_number = labels is not None and len(labels) == spec.dim
        ndim = 1 if spec.feature is None else 2
        return HDFWriter(self.filename, dim=spec.dim, ndim=ndim, labels=labels if same_number else None)


def output_filename(config: Config, epoch: int) -> str:
    """`output_file`, which must not exist unless it may be overwritten (then it is removed)."""
    filename = config.value("output_file", f"dump-fwd-epoch-{epoch}.hdf")
    if os.path.exists(filename):
        if not config.is_true("forward_override_hdf_output"):
            raise ConfigError("output_file", f"file {filename!r} must not exist yet, but does")
        os.remove(filename)
    return filename


def entries(output: Tensor, layer: str) -> list[np.ndarray]:
    """The array of each sequence, without padding; the feature axis comes last."""
    if output.beam is not None and not output.beam.decided:
        text = f"layer {layer!r} still has a beam of hypotheses; forward the layer that decides (class `decide`)"
        raise ConfigError("forward_output_layer", text)
    output = batch_first(output, layer)
    rows = unpadded(output if output.spec.feature is None else feature_last(output))
    return [row.astype("int32") for row in rows] if output.spec.sparse else rows


def batch_first(output: Tensor, layer: str) -> Tensor:
    """With the batch axis in front. ConfigError without one."""
    if output.spec.batch is None:
        raise ConfigError("forward_output_layer", f"output {layer!r} must have a batch axis, but is {output.spec}")
    return output.batch_major()


def feature_last(output: Tensor) -> Tensor:
    """(B, …) with the feature axis moved behind all others; ConfigError without feature axis or classes."""
    if output.spec.sparse:
        return output
    if output.spec.feature is None:
        text = f"the output must have a feature axis or classes, but is {output.spec}"
        raise ConfigError("forward_output_layer", text)
    return output.axis_last(output.spec.feature)


# --- to the config ----------------------------------------------------------------------------------------------------

METHODS = {"init": ("model",), "process_seq": ("seq_tag", "outputs"), "finish": ()}  # with their arguments


class ToCallback:
    """An object of the config with `init(model=…)`, `process_seq(seq_tag=…, outputs=…)`, `finish()`.

    callback: the object, or what makes it when it is called, such as its class.
    """

    def __init__(self, callback: Any, net: Model) -> None:
        makes_it = callable(callback) and (isinstance(callback, type) or not hasattr(callback, "process_seq"))
        made = callback() if makes_it else callback
        for method, arguments in METHODS.items():
            function = getattr(made, method, None)
            if not callable(function):
                text = f"must have the methods {', '.join(METHODS)}, but {made!r} lacks `{method}`"
                raise ConfigError("forward_callback", text)
            check_arguments(function, f"forward_callback.{method}", arguments)
        self.callback, self.net = made, net

    def __enter__(self) -> "ToCallback":
        self.callback.init(model=getattr(self.net, "user_model", self.net))
        return self

    def __exit__(self, kind: Any, error: Any, trace: TracebackType | None) -> None:
        if error is None:
            self.callback.finish()

    def write(self, outputs: Outputs, tags: list[str]) -> None:
        """Calls it for every sequence."""
        first = {name: batch_first(output, name) for name, output in outputs.items()}
        marked = {name: output.marked for name, output in outputs.items() if isinstance(output, MarkedOutput)}
        rows = {name: unpadded(output) for name, output in first.items() if name not in marked}
        sequences = Sequences(marked)
        for i, tag in enumerate(tags):
            named = sequences[i]
            for name, row in rows.items():
                named.data[name] = of_sequence(name, first[name], row[i])
            self.callback.process_seq(seq_tag=tag, outputs=named)


def of_sequence(name: str, output: Tensor, row: np.ndarray) -> NamedTensor:
    """The array of one sequence, whose axes have its lengths."""
    pairs = zip(output.spec.dims[1:], row.shape, strict=True)
    dims = [Dim(torch.tensor(size), name=dim.name) if dim.dynamic else Dim.of(dim) for dim, size in pairs]
    sparse_dim = None if output.spec.sparse_dim is None else Dim.of(output.spec.sparse_dim)
    return NamedTensor(name, dims, output.spec.dtype, sparse_dim=sparse_dim, raw_tensor=row)
