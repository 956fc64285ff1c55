"""`rnn.py CONFIG --check`: whether a config works, by one step on two sequences; nothing is written."""

import dataclasses

import torch

from returnn_lite.config import Config, warn_misspelt_keys
from returnn_lite.config.keys import helper_names
from returnn_lite.datasets import Batch, BatchingOptions, Dataset, init_dataset
from returnn_lite.engine import data
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.models.network_source import print_network
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.report import EpochScores
from returnn_lite.engine.setup import choose_device, device_words, log_defaults
from returnn_lite.engine.step import StepResult, run_step
from returnn_lite.engine.train import open_trainer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

SEQUENCES = 2
OTHER_DATA = ("search_data", "forward_data", "eval", "dev")  # where there is no training


def check_task(config: Config, log: Log) -> None:
    """A training step (the first epoch that the training would come to) or, without `train`, the network's outputs.

    On the CPU, with the first sequences; logs parameters, scores, and options that nobody read. Any fault is an error.
    """
    device_words(config)
    for key, value in (("device", "cpu"), ("dry_run", True), ("num_workers", 0)):
        config.set(key, value)
    net, result = train_once(config, log) if config.has("train") else run_once(config, log)
    order_all(config, log)
    for name, param in sorted(net.params.items()):
        log.v2(f"  {name} {list(param.shape)}{'' if param.requires_grad else ', not trained'}")
    scores = EpochScores().add(result.columns, result.scores.cpu().numpy())
    log.v1("scores of the step: " + ", ".join(f"{key} {value}" for key, value in sorted(scores.items())))
    if not bool(torch.isfinite(result.scores).all()):
        raise ConfigError("network", "the scores of the first step must be finite, but are not")
    warn_misspelt_keys(config, log)
    unread = ", ".join(helper_names(config))
    log.v1(f"unused options: {unread or 'none'}")
    log.v1("Config OK.")


def order_all(config: Config, log: Log) -> None:
    """Starts the first epoch of every dataset. ConfigError for an order that a dataset cannot have."""
    datasets = data.open_eval_datasets(config, log)
    for option in OTHER_DATA[:2]:
        if config.literal(option) and config.literal(option) not in ("train", *OTHER_DATA):
            datasets[option] = data.named_dataset(config, option, log)
    for dataset in datasets.values():
        dataset.init_seq_order(epoch=1)
        dataset.finish_epoch(free_resources=True)


def train_once(config: Config, log: Log) -> tuple[Model, StepResult]:
    """The training's set-up and its first step; the network and the step's scores."""
    trainer = open_trainer(config, log)
    log_defaults(config, log)
    epoch, net = trainer.start_epoch, trainer.net
    batch = first_batch(trainer.data.train, data.train_batching(config, net, epoch), net, config)
    rate = trainer.learning_rate(epoch)
    result = run_step(net.train(), batch, trainer.device)
    trainer.updater.step(result.out.objective, global_step=0, learning_rate=rate, epoch_step=0)
    return net, result


def run_once(config: Config, log: Log) -> tuple[Model, StepResult]:
    """The network of a config without training, with random parameters, and what it makes of its data."""
    dataset = other_dataset(config, log)
    data.complete_extern_data(config, [dataset])
    device, source = choose_device(config, log), model_source(config)
    search = config.value("task", "train") == "search"
    net = source.build(source.describe(1), epoch=1, device=device, log=log, search=search).eval()
    print_network(net, log)
    batch = first_batch(dataset, data.search_batching(config, net), net, config)
    with torch.no_grad():
        return net, run_step(net, batch, device)


def other_dataset(config: Config, log: Log) -> Dataset:
    """The first that there is of the datasets of other tasks. ConfigError if there is none."""
    for name in OTHER_DATA:
        value = config.literal(name)
        if value and value not in ("train", *OTHER_DATA):
            return init_dataset(value, name=name, config=config, log=log)
    raise ConfigError("train", f"there must be a dataset: `train`, or one of {', '.join(OTHER_DATA)}")


def first_batch(dataset: Dataset, options: BatchingOptions, net: Model, config: Config) -> Batch:
    """The first sequences as a batch. ConfigError if there are none."""
    dataset.init_seq_order(epoch=1)
    options = dataclasses.replace(options, max_seqs=SEQUENCES, seq_drop=0.0, shuffle_batches=False)
    batch: Batch | None = next(iter(data.load_batches(dataset, options, net, config)), None)
    if batch is None:
        raise ConfigError(dataset.name, "must have sequences, but has none; see max_seq_length")
    return batch
