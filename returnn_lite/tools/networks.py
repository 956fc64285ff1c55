"""Networks of configs, for tools that run them: trained or not, and their outputs for a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
import returnn_lite.compat.formats  # noqa: F401 - registers the formats
from returnn_lite.compat.running import RUNNING
from returnn_lite.config import Config, load_into
from returnn_lite.config.check_values import check_values
from returnn_lite.datasets import Dataset
from returnn_lite.engine import data
from returnn_lite.engine.batch_errors import with_batch_context
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.setup import load_network
from returnn_lite.engine.step import forward_batch
from returnn_lite.engine.tasks.forward import entries
from returnn_lite.engine.tasks.init_only import build_for_training
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tasks import eval_names
from returnn_lite.tensor import Tensor
from returnn_lite.tools.common import Progress

Arrays: TypeAlias = Callable[[Tensor, str], list[np.ndarray]]  # of a batch's output, and the layer's name


def config_of_files(files: Sequence[str], **options: object) -> Config:
    """The config of files, of which later ones win, with options (those that are not None) that win over them."""
    config = Config()
    RUNNING.config = config
    load_into(config, list(files), [])
    for name, value in options.items():
        if value is not None:
            config.set(name, value)
    config.eval_names = eval_names
    check_values(config)
    return config


def untrained_network(config: Config, log: Log, epoch: int) -> Model:
    """The network of an epoch as its training would begin."""
    if config.typed_value("extern_data") or config.has("num_inputs"):
        config.set("need_data", False)
    return build_for_training(config, log, epoch)


@dataclass(frozen=True)
class SeqOutputs:
    """The outputs for one sequence, by layer, without padding; and the network's data for it."""

    tag: str
    layers: dict[str, np.ndarray]
    data: dict[str, np.ndarray]


def outputs(
    config: Config,
    dataset: Dataset,
    layers: Sequence[str],
    log: Log,
    *,
    first: int = 0,
    last: int | None = None,
    arrays: Arrays = entries,
) -> Iterator[SeqOutputs]:
    """The outputs of the trained network for the sequences first … last of the dataset, in its order.

    Layers in a loop are called "output/energy". `arrays`: gives the array of each sequence. ConfigError for a
    layer that is not there.
    """
    data.complete_extern_data(config, [dataset])
    if not config.has("forward_batch_size") and config.has("batch_size"):
        config.set("forward_batch_size", config.literal("batch_size"))
    loaded = load_network(config, log, task="forward", search=False, eval=False, extra_layers=tuple(layers))
    dataset.init_seq_order(epoch=loaded.epoch)
    loader = data.load_batches(dataset, data.forward_batching(config, loaded.net), loaded.net, config)
    progress, at = Progress("sequences"), 0
    with torch.no_grad(), loaded.net.running_over(dataset.name):
        for batch in loader:
            with with_batch_context(batch, config):
                out = forward_batch(loaded.net, batch, loaded.device, wanted=layers)
                rows = {name: arrays(out[name], name) for name in layers}
            for i, tag in enumerate(batch.tags):
                if first <= at and (last is None or at <= last):
                    cut = {
                        key: np.asarray(values[i])[: int(batch.lengths[key][i]) if key in batch.lengths else None]
                        for key, values in batch.data.items() if not isinstance(values, list)
                    }  # fmt: skip
                    yield SeqOutputs(tag, {name: row[i] for name, row in rows.items()}, cut)
                at += 1
                progress.step(batch.complete)
            if last is not None and at > last:
                break
    progress.end()
    if at <= first:
        raise ConfigError("--startseq", f"must be below the number of sequences, {at}, but is {first}")
