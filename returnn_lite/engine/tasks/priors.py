"""Task `compute_priors`: how probable each class is on average, by what the network says of the training data."""

import os

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine import data
from returnn_lite.engine.batch_errors import with_batch_context
from returnn_lite.engine.log_form import Pass
from returnn_lite.engine.setup import load_network
from returnn_lite.engine.step import forward_batch
from returnn_lite.engine.step_meter import step_meter
from returnn_lite.engine.tasks.forward import feature_last
from returnn_lite.errors import ConfigError
from returnn_lite.files import TEMPORARY, remove_if_there, write_atomically
from returnn_lite.log import Log
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.masked import mask_all


def compute_priors_task(config: Config, log: Log) -> None:
    """Writes the natural logarithm of the mean output of `forward_output_layer` over all frames of `train`, a line per
    class, to `output_file`."""
    filename = output_filename(config)
    dataset = data.require_dataset(config, "train", log)
    data.complete_extern_data(config, [dataset])
    layer = config.value("forward_output_layer", "output")
    loaded = load_network(config, log, task="compute_priors", eval=False, extra_layers=(layer,))
    net, device = loaded.net, loaded.device
    epoch = config.int("epoch", 1) or 1
    dataset.init_seq_order(epoch=epoch)
    loader = data.load_batches(dataset, data.prior_batching(config, net), net, config)
    meter = step_meter(config, loaded.source.form, Pass("priors", epoch, dataset.name), log, net)
    total, frames = torch.zeros((), dtype=torch.float64, device=device), 0
    with torch.no_grad(), net.running_over(dataset.name):
        for step, batch in enumerate(loader):
            with with_batch_context(batch, config):
                sums, count = sum_frames(forward_batch(net, batch, device, wanted=[layer])[layer])
            total, frames = total + sums, frames + count
            meter.end_step()
            meter.progress.step_line(step, {}, meter.sizes(batch, device), batch.complete)
    meter.finish(loader.wait_time)
    if not frames:
        raise ConfigError("train", "must have frames to compute priors from, but has none")
    priors = log_of_means((total / frames).cpu().numpy(), layer)
    log.v3(f"Write the log priors of {len(priors)} classes, from {frames} frames, to {filename}")
    write_atomically(filename, lambda file: np.savetxt(file, priors, delimiter=" "))


def log_of_means(means: np.ndarray, layer: str) -> np.ndarray:
    """The natural logarithm; -inf for a class that never occurs.  Shape: (D,) -> (D,)

    Raises ConfigError if the layer does not give probabilities.
    """
    if (means < 0).any():
        raise ConfigError(
            "forward_output_layer",
            f"priors are means of probabilities, but layer {layer!r} gives {means.min():.4g} on average for class "
            f"{int(means.argmin())}; name a softmax layer",
        )
    with np.errstate(divide="ignore"):
        priors: np.ndarray = np.log(means)
    return priors


def output_filename(config: Config) -> str:
    """`output_file`. ConfigError if it is not set, or exists already."""
    filename = config.value("output_file", "")
    if not filename:
        raise ConfigError("output_file", "must be set, it is the file that the priors are written to")
    if os.path.exists(filename):
        raise ConfigError("output_file", f"file {filename!r} must not exist yet, but does")
    remove_if_there(filename + TEMPORARY)
    return filename


def sum_frames(output: Tensor) -> tuple[torch.Tensor, int]:
    """The sum over all valid frames, in double precision, and their number; a class index counts as one-hot.

    Shape: (B, T, D), or (B, T) of indices of D classes -> (D,)
    """
    output = feature_last(output.batch_major())
    valid, values = mask_all(output), output.data
    if output.spec.sparse:
        frames = values.long() if valid is None else values.long()[valid.expand_as(values)]
        return torch.bincount(frames.flatten(), minlength=output.spec.dim or 0).double(), frames.numel()
    values = values.double()
    if valid is None:
        return values.flatten(end_dim=-2).sum(0), values[..., 0].numel()
    valid = valid.expand_as(values)
    return values.masked_fill(~valid, 0.0).flatten(end_dim=-2).sum(0), int(valid[..., 0].sum())
