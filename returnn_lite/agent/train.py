"""Task `train_lr_agent`: an agent learns, by PPO, to choose the learning rates of the config's own training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from typing import Any

import torch

from returnn_lite.agent.gym_forms import agent_class, require_packages
from returnn_lite.agent.journal import Journal
from returnn_lite.agent.save import check_same, plain_options, restore, save_agent
from returnn_lite.agent.session import Session
from returnn_lite.config import Config
from returnn_lite.engine.interrupt import RESUME, StopRequest
from returnn_lite.engine.loggers.scalar_log import ScalarLog
from returnn_lite.errors import ConfigError
from returnn_lite.files import TEMPORARY, remove_if_there
from returnn_lite.log import Log
from returnn_lite.schedule.agent_file import KEY, AgentFile

ROLLOUT = 2048  # epochs, as published


def train_lr_agent_task(config: Config, log: Log) -> None:
    """Trains the agent `learning_rate_agent`, or goes on with it, up to the budget."""
    path = config.value(KEY, None)
    if not path:
        raise ConfigError(KEY, f"`{KEY}` must name the file that the agent is written to")
    require_packages("train_lr_agent")
    remove_if_there(path + TEMPORARY)
    with StopRequest(RESUME) as stop:
        AgentTraining(Session.open(config, log), path).run(stop)


class AgentTraining:
    """The rollouts of an agent: each is a number of epochs in all environments, and PPO's update after them."""

    def __init__(self, session: Session, path: str) -> None:
        self.session, self.path, self.log = session, path, session.log
        self.options = session.options
        self.plain_options = plain_options(self.options)  # before functions among them count or collect anything
        self.described = session.described()
        self.before = AgentFile.load(path).info if os.path.exists(path) else None
        self.used = {"epochs": 0, "updates": 0, "episodes": 0, "divergences": 0, "seconds": 0.0, "cpu_seconds": 0.0}
        if self.before is not None:
            check_same(self.before, self.plain_options, self.described, path)
            session.top, self.used = self.before["top"], self.before["used"]
        else:
            self.used["epochs"], self.used["updates"] = session.find_top()
        scalars = ScalarLog.from_config(session.config, self.log, of=path)
        self.journal = Journal(self.options.log or path + ".log.jsonl", self.used, scalars, self.log)

    def run(self, stop: StopRequest) -> None:
        """All rollouts; the file is written after every `save_every` of them, and at the end."""
        model = self.make_model()
        rollouts, size = 0, model.n_steps * model.n_envs
        clock, cpu = time.monotonic(), time.process_time()
        while not self.is_over(size):
            model.remaining = self.remaining(model.num_timesteps / size, size)
            model.learn(size, callback=self.journal.callback(), reset_num_timesteps=False, log_interval=None)
            rollouts += 1
            self.used["seconds"] += time.monotonic() - clock
            self.used["cpu_seconds"] += time.process_time() - cpu
            clock, cpu = time.monotonic(), time.process_time()
            self.journal.record(model.logger)
            model.logger.dump(model.num_timesteps)
            self.journal.progress(self.options.budget, over=self.is_over(size))
            if rollouts % self.options.save_every == 0 or self.is_over(size):
                self.save(model)
            stop.check()
        model.env.close()
        self.journal.close()
        self.log.v1(f"agent: {self.path}")

    def is_over(self, rollout: int) -> bool:
        """Whether the budget is used up. In practical mode it is never exceeded, in paper mode it is reached."""
        updates = self.options.budget_updates
        if updates is not None and self.used["updates"] >= updates:
            return True
        done, first = self.used["epochs"], not self.used["episodes"]
        if self.options.mode == "paper":
            return done >= self.options.budget
        return done + rollout > self.options.budget and not first

    def remaining(self, done: float, rollout: int) -> float:
        """The part of the training that is left in the middle of the next rollout, from nearly 1 to nearly 0: what the
        functions among PPO's arguments get. `done`: rollouts before it; `rollout`: epochs of each."""
        left = (self.options.budget - self.used["epochs"]) / rollout
        count = math.ceil(left) if self.options.mode == "paper" else math.floor(left)
        updates, limit = self.used["updates"], self.options.budget_updates
        if limit is not None and updates:
            count = min(count, math.ceil((limit - updates) * self.used["epochs"] / (updates * rollout)))
        return 1.0 - (done + 0.5) / (done + max(count, 1))

    # --- the model ----------------------------------------------------------------------------------------------------

    def make_model(self) -> Any:
        """PPO with its environments: new, or as the agent's file has it."""
        from stable_baselines3.common.utils import configure_logger
        from stable_baselines3.common.vec_env import VecNormalize

        count, arguments = self.options.num_envs, self.options.ppo_arguments()
        steps = arguments.pop("n_steps", self.session.num_epochs if self.options.mode != "paper" else ROLLOUT // count)
        steps = max(min(steps, self.options.budget // count), 1)
        policy: dict[str, Any] = {key: arguments.pop(key) for key in ("log_std_init", "net_arch") if key in arguments}
        env, form = self.session.vec_env(count)
        self.log.v2(f"agent: {count} environments ({form}), {steps} epochs each in a rollout")
        if self.options.normalize:
            env = VecNormalize(env, norm_reward=False)
        arguments = {"batch_size": min(64, steps * count), **arguments}
        try:
            model = agent_class()(
                "MlpPolicy", env, n_steps=steps, seed=self.session.seed, device="cpu", policy_kwargs=policy, **arguments
            )
        except TypeError as error:
            raise ConfigError('lr_agent["ppo"]', f"wrong arguments of PPO: {error}") from None
        if model.tensorboard_log is not None:  # a folder for each start
            model.set_logger(configure_logger(model.verbose, model.tensorboard_log, "PPO", True))
        if self.before is not None:
            restore(self.path, model)
            self.log.v1(f"agent: continuing {self.path}, {self.used['epochs']} epochs so far")
        return model

    def save(self, model: Any) -> None:
        """Writes the agent's file, whole or not at all."""
        self.journal.flush()
        info = {
            "mode": self.options.mode,
            "options": self.plain_options,
            **self.described,
            "top": self.session.top,
            "used": self.used,
            "versions": versions(),
            "config_hash": config_hash(self.session.config),
        }
        states = model.env.env_method("state_dict")
        save_agent(self.path, model, info, states)
        if self.options.keep_checkpoints:
            base, suffix = os.path.splitext(self.path)
            save_agent(f"{base}.{self.used['epochs']}{suffix}", model, info, states)


def config_hash(config: Config) -> str:
    """Of all options; functions and other objects count by their type."""
    values = {key: config.literal(key) for key in config.keys() if not key.startswith("_")}
    text = json.dumps(values, default=lambda value: type(value).__name__, sort_keys=True, skipkeys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that the numbers depend on."""
    import gymnasium
    import stable_baselines3

    found = {"torch": torch, "gymnasium": gymnasium, "stable_baselines3": stable_baselines3}
    return {name: str(module.__version__) for name, module in found.items()} | {"python": sys.version.split()[0]}
