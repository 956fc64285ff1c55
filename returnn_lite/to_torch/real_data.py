"""The first sequences of a config's data, on which a written module is checked."""

from __future__ import annotations

import dataclasses
from itertools import islice

import torch

from returnn_lite.config import Config
from returnn_lite.datasets import Dataset
from returnn_lite.engine import data
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.to_torch.batches import Arrays, Net

CHECKED_ON = ("dev", "train", "eval")
SEQUENCES = (2, 3)  # in a batch


def open_data(config: Config, log: Log) -> tuple[Dataset | None, str]:
    """The dataset `dev`, `train` or `eval`, the first there is; if none can be read, why."""
    for name in CHECKED_ON:
        if config.literal(name):
            try:
                return data.open_dataset(config, name, log), ""
            except ConfigError as exc:
                return None, str(exc).partition("\n")[0]
    return None, "the config has no data"


def real_batches(config: Config, net: Net, dataset: Dataset | None) -> list[tuple[Arrays, Arrays]]:
    """Two batches, of 2 and of 3 sequences if there are so many: data and lengths by key. [] without data."""
    if dataset is None or not net.used_data_keys:
        return []
    config.update({"max_seq_length": 0})
    found = []
    for number, count in enumerate(SEQUENCES):
        dataset.init_seq_order(epoch=1)
        options = dataclasses.replace(data.search_batching(config, net), max_seqs=count)
        batch = next(islice(data.load_batches(dataset, options, net, config), number, None), None)
        if batch is not None:
            arrays = {key: torch.as_tensor(x) for key, x in batch.data.items() if key in net.used_data_keys}
            found.append((arrays, {key: torch.as_tensor(x) for key, x in batch.lengths.items() if key in arrays}))
    return found
