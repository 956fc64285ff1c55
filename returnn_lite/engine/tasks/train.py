"""Task `train`."""

import os
from collections.abc import Callable

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.lock import model_lock
from returnn_lite.engine.distributed import World, joined_world, processes
from returnn_lite.engine.interrupt import RESUME, StopRequest
from returnn_lite.engine.setup import model_name
from returnn_lite.engine.train import Trainer
from returnn_lite.log import Log

MakeTrainer = Callable[[Config, Log, World], Trainer]


def train_task(config: Config, log: Log, make_trainer: MakeTrainer = Trainer) -> Trainer:
    """Task `train`: from the last complete epoch on disk to `num_epochs`; in all processes that torchrun started.

    Returns the trainer with the state at the end.
    """
    several = processes(os.environ)[1] > 1
    with StopRequest(RESUME, gentle=several) as stop, joined_world(config) as world:
        model = None if config.is_true("dry_run") else model_name(config)
        with model_lock(model, log):
            trainer = make_trainer(config, log, world)
            trainer.run(stop)
    return trainer
