"""Task `train`."""

from returnn_lite.config import Config
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.learned import LearnedTrainer
from returnn_lite.engine.lock import model_lock
from returnn_lite.engine.setup import model_name
from returnn_lite.engine.train import Trainer
from returnn_lite.log import Log


def train_task(config: Config, log: Log) -> None:
    """Task `train`: from the last complete epoch on disk to `num_epochs`."""
    model = None if config.is_true("dry_run") else model_name(config)
    learned = config.value("learning_rate_control", "") == "learned"
    with model_lock(model, log):
        trainer = LearnedTrainer(config, log) if learned else Trainer(config, log)
        with StopRequest() as stop:
            trainer.run(stop)
