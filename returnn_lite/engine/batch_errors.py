"""What is said of a batch that goes wrong: too large for the device, or with scores that are not finite."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.batch_like import BatchLike, num_rows
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.step import run_step
from returnn_lite.errors import ConfigError


class OutOfMemory(ConfigError):
    """The device has not enough memory for a batch."""


@contextmanager
def with_batch_context(batch: BatchLike, config: Config, net: Model | None = None) -> Iterator[None]:
    """Turns running out of GPU memory into an error that describes the batch, and the largest layers of `net`."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        lengths = {key: values.tolist() for key, values in batch.lengths.items()}
        shapes = {key: tuple(np.shape(value)) for key, value in batch.data.items()}
        options = f"batch_size {config.literal('batch_size', 1)}, max_seqs {config.literal('max_seqs', -1)}"
        text = f"out of GPU memory in a batch of shapes {shapes}, with {options}"
        text = f"{text}{largest_outputs(net, batch)}; sequences {batch.tags}, lengths {lengths}"
        raise OutOfMemory("batch_size", f"{text}; {str(exc).splitlines()[0]}") from exc


def largest_outputs(net: Model | None, batch: BatchLike, count: int = 3) -> str:
    """The layers with the most numbers in their outputs, roughly: every axis with lengths is as long as the longest
    sequence. "" for a network without layers."""
    spec_of = getattr(net, "spec", None)
    if net is None or spec_of is None:
        return ""
    longest = max((int(values.max(initial=0)) for values in batch.lengths.values()), default=1)
    sizes = {}
    for name in net.layers:
        axes = [num_rows(batch) if dim.is_batch else dim.size or longest for dim in spec_of(name).dims]
        sizes[f"{name} {axes}"] = 4 * math.prod(axes)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:count]
    return f"; largest outputs: {', '.join(f'{name}: {sizes[name] / 2**20:.0f} MB' for name in largest)}"


def nonfinite_layer(net: Model, batch: BatchLike, device: torch.device) -> str:
    """Names the first parameter or layer output that is not finite, '' if all are; runs the step again."""
    for name, param in net.params.items():
        if param.is_floating_point() and not bool(torch.isfinite(param).all()):
            return f"parameter {name!r} is not finite"
    with torch.no_grad():
        out = run_step(net, batch, device).out
    for name in net.layers:
        try:
            data = out[name].data
        except (KeyError, AttributeError):  # layers without data of their own
            continue
        if isinstance(data, torch.Tensor) and data.is_floating_point() and not bool(torch.isfinite(data).all()):
            return f"{name} is not finite" if name.startswith("data:") else f"first non-finite layer output: {name!r}"
    return ""
