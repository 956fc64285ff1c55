"""A training that leaves no trace: the engine's own epochs, without files and log, as often as wanted."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.engine.checkpoints.finite import all_finite
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.steering import settings_of
from returnn_lite.engine.step import BrokenScores, Forward, by_itself
from returnn_lite.engine.train import Trainer
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.episode import EpochFacts
from returnn_lite.schedule.scores import choose_error_key, flatten
from returnn_lite.trials.shared_data import SharedData, TrialData
from returnn_lite.trials.watch import FACTS, EpochWatch

# What a trial does without: files, and everything else that chooses learning rates.
LEFT_OUT = """
    model learning_rate_file load load_epoch start_epoch cleanup_old_models tensorboard_opts tf_log_dir lr_scheduler
    learning_rates learning_rate_control pretrain eval use_last_best_model weight_averaging save_epoch1_initial_model
    learning_rate_agent loggers
""".split()
HUGE = 1000  # times the initial score: diverged


def trial_config(config: Config, **changes: Any) -> Config:
    """A copy of the config for trials, with `changes`."""
    typed = {key: value for key, value in config.typed.items() if key not in LEFT_OUT}
    copied = Config(typed)
    copied.untyped.update({key: value for key, value in config.untyped.items() if key not in LEFT_OUT})
    copied.eval_names = config.eval_names
    for key, value in {"num_workers": 0, **changes}.items():
        copied.set(key, value)
    return copied


class Trial:
    """A training without files and log, which can be begun anew with other initial values.

    `shared`: the datasets, which other trials use as well; `watch` looks on. `reset(seed)` begins a training,
    `epoch(rate)` trains an epoch: both give what is known then. `forward` runs the network. `updates` are those of all
    trainings.
    """

    def __init__(self, config: Config, shared: SharedData, watch: EpochWatch | None = None) -> None:
        self.config, self.log = trial_config(config), Log.silent()
        self.plain = dict(self.config.typed)
        self.data = TrialData(self.config, self.log, shared)
        self.watch = watch or EpochWatch()
        self.forward: Forward = by_itself
        self.epoch_number = self.seed = self.updates = 0
        self.trainer = self._begun()

    def _begun(self) -> Trainer:
        """A trainer at the start of its training."""

        def run(net: Model, data: dict[str, Any], lengths: dict[str, torch.Tensor], tags: list[str]) -> ModelOutput:
            return self.forward(net, data, lengths, tags)

        trainer = Trainer(self.config, self.log, data=self.data, forward=run, observers=[self.watch])
        trainer.start()
        return trainer

    @property
    def net(self) -> Model:
        """The network."""
        return self.trainer.net

    @property
    def updater(self) -> Updater:
        """What updates it."""
        return self.trainer.updater

    def reset(self, seed: int, init_factor: float = 1.0, input_factor: float = 1.0, **changes: Any) -> float:
        """A new network, with initial values and data orders by `seed`, and `changes` of the config's options; its
        score before any training. The factors are of all initial values, and of all input features."""
        self.config.typed.clear()
        self.config.typed.update(self.plain)
        for key, value in {"random_seed": seed, **changes}.items():
            self.config.set(key, value)
        self.epoch_number, self.seed = 0, seed
        self.data.seed, self.data.input_factor = seed, input_factor
        self.trainer = self._begun()
        if init_factor != 1.0:
            with torch.no_grad():
                torch._foreach_mul_([param for param in self.net.params.values() if param.requires_grad], init_factor)
        self.initial_score = initial_score(self.trainer, self.watch.measure)
        return self.initial_score

    @property
    def settings(self) -> dict[str, float]:
        """What `epoch` can set besides the learning rate, as it is now."""
        return settings_of(self.updater.optimizers)

    def epoch(self, learning_rate: float, settings: Mapping[str, float] | None = None) -> EpochFacts | None:
        """Trains the next epoch and evaluates; None if it diverged: a loss or parameter is not finite, or the score is
        more than 1000 times the initial one."""
        self.epoch_number += 1
        control = self.trainer.control
        control.record(self.epoch_number, learning_rate)
        if settings:
            control.set_meta(self.epoch_number, {lr_file.SETTINGS: settings})
        try:
            self.trainer.train_epoch(self.epoch_number, StopRequest())
        except BrokenScores:
            return None
        finally:
            self.updates += len(self.watch.losses)
        record = control.epochs[self.epoch_number]
        score = score_of(record, self.watch.measure)
        if not is_good(score, self.initial_score) or not all_finite(self.net.params.values()):
            return None
        return EpochFacts(learning_rate=record.learning_rate or 0.0, score=score, **record.meta[FACTS])

    def snapshot(self) -> dict[str, Any]:
        """What an epoch changes."""
        return snapshot(self.trainer)

    def roll_back(self, before: Mapping[str, Any]) -> None:
        """Takes an epoch back."""
        roll_back(self.trainer, before)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "params": {name: param.detach().clone() for name, param in self.net.params.items()},
            "optimizer": self.updater.state_dict(),
            "rates": self.trainer.control.text(),
            "step": self.trainer.global_step,
            "epoch": self.epoch_number,
            "score": self.initial_score,
            "seed": self.seed,
            "input_factor": self.data.input_factor,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the other trial was."""
        self.reset(state["seed"], input_factor=state["input_factor"])
        with torch.no_grad():
            for name, param in self.net.params.items():
                param.copy_(state["params"][name])
        self.updater.load_state_dict(state["optimizer"])
        self.trainer.control.epochs = lr_file.from_text(state["rates"], "state")
        self.trainer.global_step = state["step"]
        self.epoch_number, self.initial_score = state["epoch"], state["score"]


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """Parameters, optimizer and step, as after the last epoch."""
    params = {name: param.detach().clone() for name, param in trainer.net.params.items()}
    return {"params": params, "optimizer": copy.deepcopy(trainer.updater.state_dict()), "step": trainer.global_step}


def roll_back(trainer: Trainer, before: Mapping[str, Any]) -> None:
    """Brings a training back to a snapshot."""
    with torch.no_grad():
        for name, param in trainer.net.params.items():
            param.copy_(before["params"][name])
    trainer.updater.load_state_dict(before["optimizer"])
    trainer.global_step = before["step"]


def initial_score(trainer: Trainer, measures: Sequence[str]) -> float:
    """The dev score of the network as it is."""
    try:
        results = trainer.evaluation(StopRequest()).run_all(trainer.data.evaluated, 1, None)
    except BrokenScores:
        return math.inf
    scores: dict[str, Any] = {}
    for name, means in results.items():
        scores.update(trainer.source.form.entries(name, means))
    return score_of(lr_file.Record(None, flatten(scores)), measures)


def score_of(record: lr_file.Record, measures: Sequence[str]) -> float:
    """The score that agents look at. ConfigError if it is not there."""
    for measure in measures:
        if measure not in record.error and f"{measure}_output" not in record.error:
            known = ", ".join(sorted(record.error))
            hint = did_you_mean(measure, record.error)
            raise ConfigError('lr_agent["measure"]', f"unknown score {measure!r}{hint} ({known})")
    key = choose_error_key(record.error, measures)
    if key is None or not key.startswith("dev_"):
        raise ConfigError("dev", "a learned learning rate needs a dev set with a loss, but no dev score was computed")
    return record.error[key]


def is_good(score: float, initial: float) -> bool:
    """Whether a training with this score has not diverged."""
    return math.isfinite(score) and not score > HUGE * initial
