"""Training with learning rates by an agent: what it must know at first, and a way back from divergence."""

import os
from typing import Any

from returnn_lite.config import Config
from returnn_lite.engine.distributed.launch import processes
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.steering import settings_of
from returnn_lite.engine.step import BrokenScores
from returnn_lite.engine.tasks import train as task
from returnn_lite.engine.train import Trainer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule.agent_file import KEY
from returnn_lite.schedule.episode import MORE_CAREFUL
from returnn_lite.schedule.learned import INITIAL, TOP, UNDONE, Learned
from returnn_lite.schedule.lr_file import Record
from returnn_lite.trials.range_test import range_test
from returnn_lite.trials.shared_data import SharedData
from returnn_lite.trials.trial import initial_score, roll_back, score_of, snapshot
from returnn_lite.trials.watch import EpochWatch, layer_sizes, short

MAX_ROLLBACKS = 5  # of one epoch


def train_task(config: Config, log: Log) -> Trainer:
    """Task `train` with `learning_rate_control = "learned"`."""
    if processes(os.environ)[1] > 1:
        raise ConfigError("learning_rate_control", '"learned" is not supported for a training in several processes')
    return task.train_task(config, log, lambda trainer, stop: LearnedTraining(trainer).run(stop))


class LearnedTraining:
    """A training whose learning rates an agent chooses: the engine's, with what comes before it and between epochs."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.config, self.log, self.control = trainer, trainer.config, trainer.log, trainer.control
        self.watch = EpochWatch.of(self.agent.trained, self.config)

    @property
    def agent(self) -> Learned:
        """The agent of the control."""
        if not isinstance(self.control.control, Learned):
            raise ConfigError(KEY, 'there must be an agent with learning_rate_control = "learned"')
        return self.control.control

    def run(self, stop: StopRequest) -> None:
        """Trains all epochs, after the agent was told how the training begins."""
        self.check()
        self.trainer.observers.append(self.watch)
        first = self.control.epochs.setdefault(1, Record(None))
        if INITIAL not in first.meta:
            first.meta[INITIAL] = short(initial_score(self.trainer, self.watch.measure))
        if self.agent.needs_range_test and TOP not in first.meta:
            shared = SharedData(self.config, self.log)
            seed = 1 + (self.config.int("random_seed", 0) or 0)
            first.meta[TOP] = range_test(self.config, shared, self.agent.range_test_options, seed, self.log).top
        self.control.save()
        for epoch in self.trainer.epochs(stop):
            if epoch == self.trainer.start_epoch:
                self.show(epoch - 1)  # a run that was killed may not have come to it
            self.train_epoch(epoch, stop)
            self.show(epoch)

    def show(self, epoch: int) -> None:
        """Hands what the agent did in an epoch to `loggers`."""
        if epoch in self.control.epochs:
            self.trainer.scalars.noted(epoch, self.agent.scalars(self.control.epochs[epoch]))

    def check(self) -> None:
        """ConfigError if the agent does not fit the training."""
        if "dev" not in self.trainer.data.evaluated:
            raise ConfigError("dev", "a learned learning rate needs a dev set, but none is set")
        optimizers = self.trainer.updater.optimizers
        self.agent.layer_sizes, self.agent.settings = layer_sizes(self.trainer.net.params), settings_of(optimizers)
        self.agent.check_layers()
        own = sorted({optimizer.name for optimizer in optimizers.values()})
        known = sorted(set(self.agent.agent.info["optimizers"]))
        if own != known:
            text = f"the agent was trained with the optimizer {', '.join(known)}, this training has {', '.join(own)}"
            if not self.agent.use.allow_other_optimizer:
                raise ConfigError(KEY, f'{text}; lr_agent["allow_other_optimizer"] = True uses it nevertheless')
            self.log.v1(f"note: {text}; their learning rates may be far apart")
        self.agent.check_settings(own)

    # --- divergence ---------------------------------------------------------------------------------------------------

    def train_epoch(self, epoch: int, stop: StopRequest) -> None:
        """As always; with `on_divergence` "rollback" again from its start, with a smaller rate, if it diverges."""
        if self.agent.use.on_divergence != "rollback":
            self.trainer.train_epoch(epoch, stop)
            return
        before = snapshot(self.trainer)
        for _ in range(MAX_ROLLBACKS):
            try:
                self.trainer.train_epoch(epoch, stop)
                score = score_of(self.control.epochs[epoch], self.watch.measure)
                if not self.agent.episode(self.control, epoch).is_bad(score):
                    return
                reason = f"score {score:.4g}"
            except BrokenScores as error:
                reason = error.message
            self.roll_back(before, epoch, reason)
        raise ConfigError("", f"epoch {epoch} diverged {MAX_ROLLBACKS} times, each with a smaller learning rate")

    def roll_back(self, before: dict[str, Any], epoch: int, reason: str) -> None:
        """Back to the snapshot, with a tenth of the learning rate; log and learning rate file say so."""
        roll_back(self.trainer, before)
        self.trainer.scalars.go_back(epoch, self.trainer.global_step)
        record = self.control.epochs[epoch]
        failed = record.learning_rate or 0.0
        record.meta.setdefault(UNDONE, []).append(failed)
        record.error.clear()
        self.control.record(epoch, short(MORE_CAREFUL * failed))
        self.control.save()
        text = f"epoch {epoch} diverged with learning rate {failed:.4g} ({reason})"
        self.log.v1(f"{text}: back to the last good state, now with {record.learning_rate:.4g}")
