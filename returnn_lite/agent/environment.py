"""The environment of an agent: trainings of the engine, one epoch a step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from returnn_lite.agent.rewards import LOST, reward
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.actions import clipped
from returnn_lite.schedule.agent_options import RATE, AgentOptions
from returnn_lite.schedule.episode import MORE_CAREFUL, Episode, EpochFacts
from returnn_lite.schedule.levers import Values, values_of
from returnn_lite.schedule.observations import names, observe
from returnn_lite.trials.trial import Trial
from returnn_lite.trials.watch import layer_sizes

SEEDS = 2**31 - 1
USUAL_START = 10.0
Variation = tuple[float, float, float]
SAME: Variation = (1.0, 1.0, 1.0)


class Environment:
    """Episodes: a training of `num_epochs` epochs each, with new initial values and data orders.

    `top`: the range test's learning rate; `seed`: of the initial values of all episodes, and of penalties.
    """

    def __init__(self, trial: Trial, options: AgentOptions, num_epochs: int, top: float | None, seed: int) -> None:
        self.trial, self.options, self.num_epochs, self.top = trial, options, num_epochs, top
        self.random = np.random.default_rng(seed)
        self.episode = Episode(num_epochs, 1.0)
        self.varied, self.rolls_back = SAME, options.rolls_back
        self.said = 0.0  # the action behind the next learning rate
        self.gained = 0.0  # the sum of the episode's rewards

    @property
    def observation_size(self) -> int:
        """The length of an observation."""
        return len(names(self.options.observation, layer_sizes(self.trial.net.params), self.options.acts_on))

    @property
    def action_size(self) -> int:
        """The length of an action."""
        return len(self.options.acts_on)

    def observation(self) -> np.ndarray:
        """What the agent sees now, float32."""
        return observe(self.options.observation, self.episode, self.options.acts_on)

    def begin(self) -> np.ndarray:
        """The next episode of the agent's training, varied as the options say; its first observation."""
        seed = int(self.random.integers(SEEDS))
        return self.reset(seed, variation(self.random, self.options))

    def reset(self, seed: int, varied: Variation = SAME, **changes: Any) -> np.ndarray:
        """Begins an episode with a seed; `varied`: factors of the first learning rate, of the initial values and of
        the input features; `changes`: of the config's options. Its first observation."""
        self.varied = start_factor, init_factor, input_factor = varied
        score = self.trial.reset(seed, init_factor, input_factor, **changes)
        if not math.isfinite(score):
            raise ConfigError("network", f"the untrained network must have a finite dev score, but has {score}")
        start = math.nan if self.top is None else self.top / (self.options.start or USUAL_START) * start_factor
        sizes, settings = layer_sizes(self.trial.net.params), self.trial.settings
        self.episode = Episode(self.num_epochs, score, sizes, self.top, start, settings=settings)
        self.gained = 0.0
        return self.observation()

    def step(self, action: float | Sequence[float]) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        """Trains an epoch with an action, a number for each of `acts_on`: (observation, reward, whether the episode is
        over, info).

        Info at the end of an episode: {"training": rates, actions, scores, rewards, whether it diverged}.
        """
        actions = [clipped(number) for number in np.atleast_1d(action).tolist()]
        self.said = actions[0]
        return self.train(values_of(self.options, self.episode, actions))

    def train(self, values: Values) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
        """The same with a given learning rate, and what else is to be set."""
        rate, settings = values[RATE], {name: value for name, value in values.items() if name != RATE}
        updates = self.trial.updates
        before = self.trial.snapshot() if self.rolls_back else None
        facts = self.trial.epoch(rate, settings)
        if before is not None and (facts is None or self.episode.is_bad(facts.score)):
            self.trial.roll_back(before)
            zeros = [0.0] * len(self.episode.layer_sizes)
            facts = EpochFacts(rate * MORE_CAREFUL, self.episode.scores[-1], zeros, rolled_back=True)
        gained = reward(self.options, self.episode, facts, self.random)
        self.gained += gained
        last = facts or EpochFacts(rate, LOST * self.episode.initial_score, [0.0] * len(self.episode.layer_sizes))
        last.action, last.settings = self.said, settings
        self.episode.epochs.append(last)
        over = facts is None or not self.episode.left
        info: dict[str, Any] = {"updates": self.trial.updates - updates}
        if over:
            about = {"rollbacks": len(self.episode.undone), "seed": self.trial.seed, "varied": self.varied}
            gains = {"diverged": facts is None, "reward": self.gained}
            info["training"] = {**self.episode.as_dict(), **gains, **about}
        return self.observation(), gained, over, info

    # --- going on after an interruption -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on; the training itself only where it has begun."""
        trial = self.trial.state_dict() if self.episode.epochs else {"seed": self.trial.seed}
        known = {"random": self.random.bit_generator.state, "varied": self.varied, "gained": self.gained}
        text = json.dumps({**known, "episode": asdict(self.episode)})
        return {"trial": trial, "text": text}

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Takes over `state_dict`; the observation."""
        known = json.loads(state["text"])
        self.random.bit_generator.state = known["random"]
        self.reset(state["trial"]["seed"], tuple(known["varied"]))
        if "params" in state["trial"]:
            self.trial.load_state_dict(state["trial"])
        epochs = [EpochFacts(**facts) for facts in known["episode"].pop("epochs")]
        self.episode = Episode(**{"settings": self.episode.settings, **known["episode"]}, epochs=epochs)
        self.trial.initial_score, self.gained = self.episode.initial_score, known.get("gained", 0.0)
        return self.observation()


def variation(random: np.random.Generator, options: AgentOptions) -> Variation:
    """Factors of an episode, each log-uniform in [1/limit, limit]."""
    limits = (options.vary_start, options.vary_init, options.vary_input)
    start, init, features = (float(limit ** random.uniform(-1.0, 1.0)) for limit in limits)
    return start, init, features
