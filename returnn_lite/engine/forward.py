"""Task `forward`: the outputs of one layer for a whole dataset, as an HDF file."""

import os
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.datasets import Dataset
from returnn_lite.datasets.hdf_writer import HDFWriter
from returnn_lite.engine import data
from returnn_lite.engine.evaluate import step_meter
from returnn_lite.engine.search import unpadded
from returnn_lite.engine.setup import load_network
from returnn_lite.engine.step import explained, forward_batch
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tensor import Tensor


def forward_task(config: Config, log: Log) -> None:
    """Writes the output of `forward_output_layer` for the `eval` data; one entry per sequence, padding removed."""
    if config.typed_value("forward_callback") is not None:
        raise ConfigError("forward_callback", "is not supported yet; without it the task forward writes an HDF file")
    dataset = data.require_dataset(config, "eval", log)
    data.complete_extern_data(config, [dataset])
    layer = config.value("forward_output_layer", "output")
    search = config.is_true("forward_use_search")
    loaded = load_network(config, log, task="forward", search=search, eval=False, extra_layers=(layer,))
    net, device, epoch = loaded.net, loaded.device, loaded.epoch
    filename = output_filename(config, epoch)
    batching = data.forward_batching(config, net)
    log.v2(f"Forwarding to HDF file: {filename}")
    log.v3(f"Forward output: {net.spec(layer)}")
    dataset.init_seq_order(epoch=epoch)
    loader = data.load_batches(dataset, batching, net, config)
    meter = step_meter(config, f"epoch {epoch} forward", log)
    with open_writer(filename, net, layer, dataset) as writer, torch.no_grad():
        for step, batch in enumerate(loader):
            with explained(batch, config):
                output = forward_batch(net, batch, device)[layer]
                write_output(writer, output, batch.tags, layer)
            meter.end_step()
            meter.progress.step_line(step, {}, batch.complete)
    meter.finish(loader.wait_time)


def output_filename(config: Config, epoch: int) -> str:
    """`output_file`, which must not exist unless it may be overwritten (then it is removed)."""
    filename = config.value("output_file", f"dump-fwd-epoch-{epoch}.hdf")
    if os.path.exists(filename):
        if not config.is_true("forward_override_hdf_output"):
            raise ConfigError("output_file", f"file {filename!r} must not exist yet, but does")
        os.remove(filename)
    return filename


def open_writer(filename: str, net: Any, layer: str, dataset: Dataset) -> HDFWriter:
    """The file; labels are those of the default target if there are as many as the output has classes."""
    spec = net.spec(layer)
    labels = dataset.labels.get(net.extern_data.default_target)
    same_number = labels is not None and len(labels) == spec.dim
    return HDFWriter(filename, dim=spec.dim, ndim=1 if spec.sparse else 2, labels=labels if same_number else None)


def write_output(writer: HDFWriter, output: Tensor, tags: list[str], layer: str) -> None:
    """Appends one entry per sequence: frames of all axes but the feature axis, in row-major order."""
    if output.beam is not None and not output.beam.decided:
        text = f"layer {layer!r} still has a beam of hypotheses; forward the layer that decides (class `decide`)"
        raise ConfigError("forward_output_layer", text)
    for tag, entry in zip(tags, unpadded(feature_last(output.batch_major())), strict=True):
        writer.insert(entry.astype("int32") if output.spec.sparse else entry, tag)


def feature_last(output: Tensor) -> Tensor:
    """(B, …) with the feature axis moved behind all others."""
    if output.spec.sparse:
        return output
    if output.spec.feature is None:
        text = f"the output must have a feature axis or classes, but is {output.spec}"
        raise ConfigError("forward_output_layer", text)
    return output.axis_last(output.spec.feature)
