"""What a training reads: its datasets, and the batches that each epoch has of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeAlias

from returnn_lite.config import Config
from returnn_lite.datasets import Batch, Dataset
from returnn_lite.datasets.combined.worker_process import Workers
from returnn_lite.engine import data
from returnn_lite.engine.models.model import Model
from returnn_lite.log import Log


class Batches(Protocol):
    """The batches of an epoch, in order. `wait_time`: seconds spent waiting for them."""

    wait_time: float

    def __iter__(self) -> Iterator[Batch]: ...


# Begins an epoch of a dataset that scores are computed for: (config, network, name, dataset, epoch) -> its batches.
EvalBatches: TypeAlias = Callable[[Config, Model, str, Dataset, int], Batches]


def eval_batches(
    config: Config,
    net: Model,
    name: str,
    dataset: Dataset,
    epoch: int,
    share: tuple[int, int] = (0, 1),
    workers: Workers | None = None,
) -> Batches:
    """The usual `EvalBatches`; `share` (i, n): number i of every n batches. `workers`: see `load_batches`."""
    dataset.init_seq_order(epoch=epoch)
    options = replace(data.eval_batching(config, net, name, epoch), share=share)
    return data.load_batches(dataset, options, net, config, workers)


class TrainingData:
    """The datasets of a training by the config: `train`, and by name those that scores are computed for.

    `share` (i, n): of every n batches of an evaluation, this process gets number i. `workers`: the processes that read
    all of them, one dataset after the other.
    """

    train: Dataset
    evaluated: dict[str, Dataset]
    share = (0, 1)

    def __init__(self, config: Config, log: Log) -> None:
        self.config, self.log, self.workers = config, log, data.new_workers(config)

    def open(self) -> None:
        """(Re-)creates all datasets. ConfigError if there is none to train with."""
        self.train = data.require_dataset(self.config, "train", self.log)
        self.evaluated = data.open_eval_datasets(self.config, self.log)

    def close(self) -> None:
        """Ends the processes."""
        self.workers.close()

    def start_epoch(self, epoch: int) -> None:
        """Begins an epoch of the training data."""
        self.train.init_seq_order(epoch=epoch)

    def training_batches(self, net: Model, epoch: int) -> Batches:
        """The batches of the epoch that has begun."""
        options = data.train_batching(self.config, net, epoch)
        return data.load_batches(self.train, options, net, self.config, self.workers)

    def eval_batches(self, config: Config, net: Model, name: str, dataset: Dataset, epoch: int) -> Batches:
        """The `EvalBatches` of this training."""
        return eval_batches(config, net, name, dataset, epoch, self.share, self.workers)

    def count_batches(self, net: Model) -> int:
        """The number of batches of the first epoch."""
        return data.count_batches(self.train, data.train_batching(self.config, net, 1))
