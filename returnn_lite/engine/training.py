"""Task `train`."""

from returnn_lite.config import Config
from returnn_lite.engine.distributed import joined_world
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.learned import LearnedTrainer
from returnn_lite.engine.lock import model_lock
from returnn_lite.engine.setup import model_name
from returnn_lite.engine.train import Trainer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


def train_task(config: Config, log: Log) -> None:
    """Task `train`: from the last complete epoch on disk to `num_epochs`; in all processes that torchrun started."""
    learned = config.value("learning_rate_control", "") == "learned"
    with joined_world(config) as world:
        if learned and world.size > 1:
            raise ConfigError("learning_rate_control", '"learned" is not supported for a training in several processes')
        model = None if config.is_true("dry_run") else model_name(config)
        with model_lock(model, log):
            trainer = LearnedTrainer(config, log) if learned else Trainer(config, log, world)
            with StopRequest() as stop:
                trainer.run(stop)
