"""Datasets that several trainings use in turns, each with random orders of its own."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from returnn_lite.config import Config
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.loader import Batch
from returnn_lite.engine import data
from returnn_lite.log import Log

ORDERS = 1000  # epochs of one seed whose random orders are not those of the next seed
LARGEST = 2**31


class SharedData:
    """`train` and `dev`, opened once for any number of trainings in this process.

    A training has a dataset for itself between `claim` and the end of its loading, which loaders do at once then.
    """

    def __init__(self, config: Config, log: Log) -> None:
        self.datasets = {name: data.require_dataset(config, name, log) for name in ("train", "dev")}
        data.complete_extern_data(config, self.datasets.values())
        self.parts = {name: list(parts(dataset)) for name, dataset in self.datasets.items()}
        for dataset in self.datasets.values():
            dataset.shared = True

    def claim(self, name: str, seed: int, input_factor: float = 1.0) -> None:
        """Gives the dataset the random orders of `seed`, and all input features times a factor."""
        for part in self.parts[name]:
            set_seed_offset(part, seed * ORDERS % LARGEST)
        dataset = self.datasets[name]
        inputs = [key for key in dataset.get_data_keys() if key not in dataset.get_target_list()]
        scale = functools.partial(scaled, keys=inputs, factor=input_factor)
        dataset.transform = scale if input_factor != 1.0 else None


def scaled(batch: Batch, keys: Sequence[str], factor: float) -> Batch:
    """The batch with features of these keys times a factor; classes stay."""
    for key in keys:
        values = batch.data.get(key)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            batch.data[key] = values * values.dtype.type(factor)
    return batch


def parts(dataset: Dataset) -> Iterator[Dataset]:
    """The dataset and all that it is made of."""
    yield dataset
    for value in vars(dataset).values():
        values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        for part in values:
            if isinstance(part, Dataset):
                yield from parts(part)


def set_seed_offset(dataset: Dataset, offset: int) -> None:
    """Sets `random_seed_offset` of a dataset that exists."""
    if dataset.options.random_seed_offset != offset:
        dataset.options = replace(dataset.options, random_seed_offset=offset)
        vars(dataset).pop("order_options", None)  # is made anew from the options
