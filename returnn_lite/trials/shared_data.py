"""Datasets that several trainings use in turns, each with random orders of its own."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from returnn_lite.config import Config
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.at_once import AtOnce, Tables
from returnn_lite.datasets.batches.loader import Batch, Loader
from returnn_lite.engine import data
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.training_data import Batches, TrainingData
from returnn_lite.log import Log

ORDERS = 1000  # epochs of one seed whose random orders are not those of the next seed
LARGEST = 2**31


class SharedData:
    """`train` and `dev`, opened once for any number of trainings in this process, each with `TrialData` of its own.

    A training has a dataset for itself from `claim` until it has the first batch, since batches are made at once.
    """

    def __init__(self, config: Config, log: Log) -> None:
        self.datasets = {name: data.require_dataset(config, name, log) for name in ("train", "dev")}
        data.complete_extern_data(config, self.datasets.values())
        self.parts = {name: list(parts(dataset)) for name, dataset in self.datasets.items()}
        self.tables: dict[str, Tables] = {name: {} for name in self.datasets}

    def claim(self, name: str, seed: int) -> None:
        """Gives the dataset the random orders of `seed`."""
        for part in self.parts[name]:
            set_seed_offset(part, seed * ORDERS % LARGEST)


class TrialData(TrainingData):
    """The shared datasets as one training reads them: in the orders of `seed`, with all input features times
    `input_factor`."""

    def __init__(self, config: Config, log: Log, shared: SharedData) -> None:
        super().__init__(config, log)
        self.shared, self.seed, self.input_factor = shared, 0, 1.0

    def open(self) -> None:
        """Takes those that are open."""
        self.train, self.evaluated = self.shared.datasets["train"], {"dev": self.shared.datasets["dev"]}

    def start_epoch(self, epoch: int) -> None:
        """Begins an epoch of the training data, in the order of this training."""
        self.shared.claim("train", self.seed)
        super().start_epoch(epoch)

    def training_batches(self, net: Model, epoch: int) -> Batches:
        """The batches of the epoch that has begun."""
        options = data.train_batching(self.config, net, epoch)
        loader = data.load_batches(self.train, options, net, self.config, self.workers)
        return self._own("train", loader)

    def eval_batches(self, config: Config, net: Model, name: str, dataset: Dataset, epoch: int) -> Batches:
        """Begins an epoch of `dev`, in the order of this training; its batches."""
        self.shared.claim(name, self.seed)
        dataset.init_seq_order(epoch=epoch)
        loader = data.load_batches(dataset, data.eval_batching(config, net, name, epoch), net, config, self.workers)
        return self._own(name, loader)

    def _own(self, name: str, loader: Loader) -> AtOnce:
        if self.input_factor == 1.0:
            return AtOnce(loader, self.shared.tables[name])
        dataset = loader.dataset
        inputs = [key for key in dataset.get_data_keys() if key not in dataset.get_target_list()]
        change = functools.partial(scaled, keys=inputs, factor=self.input_factor)
        return AtOnce(loader, self.shared.tables[name], change)


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
