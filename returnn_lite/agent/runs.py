"""Whole trainings with given learning rates, side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from returnn_lite.agent.environment import SAME, Environment, Variation
from returnn_lite.agent.session import Session
from returnn_lite.schedule.actions import bounds
from returnn_lite.schedule.agent_file import AgentFile
from returnn_lite.schedule.agent_options import RATE
from returnn_lite.schedule.levers import Values, values_of
from returnn_lite.schedule.observations import observe
from returnn_lite.trials.lockstep import LockStep

Rule = Callable[[Environment], Values]  # the learning rate of the next epoch, and what else is set
WIDTH = 16  # trainings side by side


@dataclass
class Run:
    """A training: its seed, where its learning rates come from, and what differs from the config. `varied`: as of
    `Environment.reset`; the first learning rate counts as far as the choice depends on it. `rolls_back`:
    epochs that diverge are taken back, as agents do."""

    seed: int
    choice: Rule
    changes: Mapping[str, Any] = field(default_factory=dict)
    varied: Variation = SAME
    rolls_back: bool = False


def play(session: Session, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The trainings' learning rates, actions and scores, in the order of `runs`."""
    environments = session.environments(min(WIDTH, len(runs)))
    lockstep = LockStep([environment.trial for environment in environments])
    lockstep.check()
    width = len(environments)
    jobs = [functools.partial(play_all, environment, runs[i::width]) for i, environment in enumerate(environments)]
    results = lockstep.run(jobs) if width > 1 else [job() for job in jobs]
    return [results[i % width][i // width] for i in range(len(runs))]


def play_all(environment: Environment, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One after the other."""
    found = []
    for run in runs:
        environment.rolls_back = run.rolls_back
        environment.reset(run.seed, run.varied, num_epochs=environment.num_epochs, **run.changes)
        over, info = False, dict[str, Any]()
        while not over:
            _, _, over, info = environment.train(run.choice(environment))
        found.append(info["training"])
    return found


# --- where learning rates come from -----------------------------------------------------------------------------------


def constant(rate: float) -> Rule:
    """Always the same."""
    return lambda environment: {RATE: rate}


def listed(values: Sequence[Values]) -> Rule:
    """Those of each epoch, whatever happens."""
    return lambda environment: values[len(environment.episode.epochs)]


def relative(values: Sequence[Values]) -> Rule:
    """The same, the learning rate times the factor by which the training's first one is varied."""

    def choice(environment: Environment) -> Values:
        now = values[len(environment.episode.epochs)]
        return {**now, RATE: now[RATE] * environment.varied[0]}

    return choice


def by_agent(agent: AgentFile) -> Rule:
    """What a trained agent says."""
    options = agent.options

    def choice(environment: Environment) -> Values:
        actions = agent.act(observe(options.observation, environment.episode, options.acts_on)).tolist()
        environment.said = actions[0]
        return values_of(options, environment.episode, actions)

    return choice


def untrained(agent: AgentFile) -> Rule:
    """What the agent said before its training, in the mean: the action 0."""
    options = agent.options
    return lambda environment: values_of(options, environment.episode, [0.0] * len(options.acts_on))


def by_chance(seed: int) -> Rule:
    """Log-uniform within what the agent can choose, a new one each epoch."""
    random = np.random.default_rng(seed)

    def choice(environment: Environment) -> Values:
        low, high = bounds(environment.options, environment.episode)
        return {RATE: float(np.exp(random.uniform(np.log(low), np.log(high))))}

    return choice
