"""Task `train`."""

import os
from collections.abc import Callable

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.lock import model_lock
from returnn_lite.engine.distributed.join import joined_world
from returnn_lite.engine.distributed.launch import processes
from returnn_lite.engine.distributed.options import DistributedOptions
from returnn_lite.engine.interrupt import RESUME, StopRequest
from returnn_lite.engine.setup import model_name
from returnn_lite.engine.train import Trainer, open_trainer
from returnn_lite.log import Log


def train_task(config: Config, log: Log, train: Callable[[Trainer, StopRequest], None] = Trainer.run) -> Trainer:
    """Task `train`: from the last complete epoch on disk to `num_epochs`; in all processes that torchrun started.

    `train`: what is done with the trainer. Returns it, with the state at the end.
    """
    several, options = processes(os.environ)[1] > 1, DistributedOptions.from_config(config)
    with StopRequest(RESUME, gentle=several) as stop, joined_world(config, options) as world:
        model = None if config.is_true("dry_run") else model_name(config)
        with model_lock(model, log):
            trainer = open_trainer(config, log, world)
            train(trainer, stop)
    return trainer
