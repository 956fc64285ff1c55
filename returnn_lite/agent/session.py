"""What training and evaluating an agent begin with: the options in full, the datasets, the range test, trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from returnn_lite.agent.environment import Environment
from returnn_lite.agent.gym_forms import gym_env, lockstep_envs, separate_envs
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.levers import require
from returnn_lite.trials.lockstep import LockStep
from returnn_lite.trials.range_test import large_steps, range_test
from returnn_lite.trials.shared_data import SharedData
from returnn_lite.trials.trial import Trial
from returnn_lite.trials.watch import EpochWatch, layer_sizes

ENV_SEEDS = 1000  # seeds of environments of one agent seed
RANGE_TEST_SEED = 900  # among them
RANGE_TEST_RUNS = 9  # their results scatter by a factor of 2, the median of so many by a quarter
START, START_OF_OTHERS = 10.0, 30.0  # the range test's rate over the first one: of SGD and the like, of the others


@dataclass
class Session:
    """The trainings of an agent. `config` has the optimizer of the trials; `top`: see `range_test`."""

    config: Config
    options: AgentOptions
    shared: SharedData
    num_epochs: int
    seed: int
    log: Log
    top: float | None = None

    @classmethod
    def open(cls, config: Config, log: Log) -> Session:
        """By the config; reads the datasets."""
        options = AgentOptions.from_config(config)
        if config.typed_value("pretrain"):
            log.v1("warning: `pretrain` is ignored in the trainings of an agent")
        if options.optimizer != "config":
            config.set("optimizer", options.optimizer)
        num_epochs = options.num_epochs or config.int("num_epochs", 5) or 0
        if num_epochs < 1:
            raise ConfigError("num_epochs", "must be the number of epochs of a training, but is 0 instead")
        seed = options.seed if options.seed is not None else config.int("random_seed", 0) or 0
        made = cls(config, options, SharedData(config, log), num_epochs, seed, log)
        made.options = replace(options, range_test_runs=options.range_test_runs or RANGE_TEST_RUNS)
        made.check_acts_on(options.acts_on)
        if options.start is None:
            large = large_steps(made.trial().updater.optimizers.values())
            made.options = replace(made.options, start=START if large else START_OF_OTHERS)
        return made

    def check_acts_on(self, acts_on: Sequence[str]) -> None:
        """ConfigError if the training lacks something that an agent is to act on."""
        if len(acts_on) > 1:
            trial = self.trial()
            require(acts_on, trial.settings, [made.name for made in trial.updater.optimizers.values()])

    def trial(self) -> Trial:
        """A new training."""
        return Trial(self.config, self.shared, EpochWatch.of(self.options, self.config))

    def find_top(self) -> tuple[int, int]:
        """Runs the range test, if one is needed; the epochs and updates it took."""
        if not (self.options.range_test and self.options.needs_top):
            return 0, 0
        seed = self.seed * ENV_SEEDS + RANGE_TEST_SEED
        found = range_test(self.config, self.shared, self.options, seed, self.log)
        self.top = found.top
        return found.epochs, found.updates

    def environment(self, index: int) -> Environment:
        """The environment of this number."""
        seed = self.seed * ENV_SEEDS + index
        return Environment(self.trial(), self.options, self.num_epochs, self.top, seed)

    def environments(self, count: int) -> list[Environment]:
        """So many of them."""
        return [self.environment(index) for index in range(count)]

    def vec_env(self, count: int) -> tuple[Any, str]:
        """All environments as stable-baselines3 wants them, and in which form they are."""
        vec = self.options.vec
        if vec in ("auto", "lockstep"):
            made = self.environments(count)
            lockstep = LockStep([environment.trial for environment in made])
            why_not = lockstep.check()
            if not why_not:
                return lockstep_envs(made, lockstep), "lockstep"
            if vec == "lockstep":
                raise ConfigError('lr_agent["vec"]', f'"lockstep" is not possible: {why_not}')
            vec = "subproc" if count > 1 and not torch.cuda.is_available() else "dummy"
            self.log.v2(f'note: the trainings do not run in lock-step ({why_not}); lr_agent["vec"] is "{vec}"')
        make = self.in_process if vec == "subproc" else self.environment
        makers = [lambda index=index: gym_env(make(index)) for index in range(count)]
        return separate_envs(makers, processes=vec == "subproc"), vec

    def in_process(self, index: int) -> Environment:
        """The environment of a process of its own, with one thread for its computations."""
        torch.set_num_threads(1)
        return self.environment(index)

    def described(self) -> dict[str, Any]:
        """What the agent's file says of the training."""
        trial = self.trial()
        return {
            "layers": layer_sizes(trial.net.params),
            "optimizers": sorted(optimizer.name for optimizer in trial.updater.optimizers.values()),
            "num_epochs": self.num_epochs,
            "seed": self.seed,
            "top": self.top,
        }
