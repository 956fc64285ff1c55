"""`learning_rate_control = "learned"`: a trained agent chooses the learning rate of each epoch.

All that its choice depends on is in the learning rate file, so that a run that is started again goes on with the same
rates: before epoch 1 the score of the untrained network and the range test's result, after each epoch what was seen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule.actions import bounds
from returnn_lite.schedule.agent_file import KEY, AgentFile
from returnn_lite.schedule.agent_options import RATE, AgentOptions
from returnn_lite.schedule.controls import Control, register_control
from returnn_lite.schedule.episode import Episode, EpochFacts
from returnn_lite.schedule.history import History
from returnn_lite.schedule.levers import OPTION, require, values_of
from returnn_lite.schedule.lr_file import SETTINGS, Record, shortest
from returnn_lite.schedule.observations import names, observe

INITIAL, TOP, SEEN = "initial_dev_score", "range_test_top", "agent_epoch"  # meta entries
UNDONE, ACTION, ACTIONS, OBSERVATION = "agent_rollbacks", "agent_action", "agent_actions", "agent_observation"
RANGE_TEST_RUNS = 3  # before a training that uses an agent, which corrects a first rate that is off
PATIENCE = 3  # epochs at a bound without a warning


@register_control("learned")
class Learned(Control):
    """The agent of a run. To be set before the first question: `layer_sizes` of the network, and the `settings` that
    the config's optimizer begins with."""

    def __init__(self, agent: AgentFile, use: AgentOptions, *, num_epochs: int, low: float, high: float, log: Log):
        self.agent, self.trained, self.use, self.num_epochs = agent, agent.options, use, num_epochs
        self.low, self.high, self.log = low, high, log
        self.layer_sizes: Mapping[str, int] = {}
        self.settings: Mapping[str, float] = {}

    @classmethod
    def from_config(cls, config: Config, log: Log) -> Learned:
        """By `learning_rate_agent`, and what `lr_agent` says about its use."""
        path = config.value(KEY, None)
        if not path:
            raise ConfigError(KEY, f'`{KEY}` must name an agent\'s file with learning_rate_control = "learned"')
        if config.has("learning_rates") and config.literal("learning_rates"):
            raise ConfigError("learning_rates", 'cannot be used together with learning_rate_control = "learned"')
        use = AgentOptions.from_config(config)
        num_epochs = use.num_epochs or config.int("num_epochs", 5) or 0
        if num_epochs < 1:
            raise ConfigError("num_epochs", "must be the number of epochs with a learned rate, but is 0 instead")
        low = config.float("min_learning_rate", 0.0) or 0.0
        high = config.float("learning_rate", 1.0) if use.max_lr_from_config else None
        agent = AgentFile.load(os.path.expanduser(path))
        known = list(agent.options.acts_on)
        if "acts_on" in (config.literal("lr_agent", None) or {}) and list(use.acts_on) != known:
            raise ConfigError(OPTION, f"must be {known}, as {path!r} was trained, but is {list(use.acts_on)} instead")
        return cls(agent, use, num_epochs=num_epochs, low=low, high=high or np.inf, log=log)

    @property
    def needs_range_test(self) -> bool:
        """Whether the agent's rates refer to the highest useful one of the network."""
        return self.trained.needs_top

    @property
    def range_test_options(self) -> AgentOptions:
        """As in the agent's training, but as long as `lr_agent` says now."""
        use = self.use
        return replace(
            self.trained,
            range_test_runs=use.range_test_runs or RANGE_TEST_RUNS,
            range_test_epochs=use.range_test_epochs,
            range_test_rates=use.range_test_rates or self.trained.range_test_rates,
        )

    def check_settings(self, optimizers: Sequence[str]) -> None:
        """ConfigError if the agent acts on what the optimizers of the training do not have."""
        require(self.trained.acts_on, self.settings, optimizers, KEY)

    def check_layers(self) -> None:
        """ConfigError if the agent sees every layer and was trained with others."""
        known = list(self.agent.info["layers"])
        if self.trained.observation == "paper" and len(known) != len(self.layer_sizes):
            names = ", ".join(known)
            raise ConfigError(
                KEY,
                f"the agent was trained with {len(known)} layers ({names}), this network has {len(self.layer_sizes)}",
            )

    def episode(self, history: History, before: int) -> Episode:
        """The training up to an epoch, from the records. ConfigError if it is not known how it began."""
        meta = history.epochs[1].meta if 1 in history.epochs else {}
        if INITIAL not in meta:
            raise ConfigError(
                "learning_rate_control", "a learned rate needs the score before any training: train first"
            )
        top = meta.get(TOP)
        start = np.nan if top is None else top / (self.trained.start or 10.0)
        made = Episode(self.num_epochs, meta[INITIAL], self.layer_sizes, top, start, settings=self.settings)
        for epoch in range(1, before):
            made.epochs.append(self._facts(history, epoch))
        return made

    def _facts(self, history: History, epoch: int) -> EpochFacts:
        record = history.epochs.get(epoch, Record(None))
        score, rate = history.score(epoch), record.learning_rate
        if score is None or rate is None:
            raise ConfigError(
                "learning_rate_file", f"the score of epoch {epoch} is missing, which a learned rate needs"
            )
        seen = record.meta.get(SEEN)
        if seen is None:
            self.log.v2(f"warning: epoch {epoch} was trained without the agent; norms of gradients count as 0")
            seen = {"grad_norms": [0.0] * len(self.layer_sizes), "train_loss": score}
        back, action = UNDONE in record.meta, record.meta.get(ACTION, 0.0)
        settings = record.meta.get(SETTINGS, {})
        return EpochFacts(rate, score, action=action, rolled_back=back, settings=settings, **seen)

    def can_tell(self, history: History, epoch: int) -> bool:
        """Whether the network is known, and how all epochs before ended."""
        return bool(self.layer_sizes) and None not in (history.score(before) for before in range(1, epoch))

    def rate(self, history: History, epoch: int) -> float:
        """The learning rate of an epoch without a record; observation and action go into its meta entries."""
        episode = self.episode(history, epoch)
        seen = observe(self.trained.observation, episode, self.trained.acts_on)
        random = None if self.use.deterministic else np.random.default_rng(epoch)
        action, *others = actions = [float(f"{number:.9g}") for number in self.agent.act(seen, random)]
        settings = values_of(self.trained, episode, actions)
        wanted = settings.pop(RATE)
        rate = min(max(wanted, self.low), self.high)
        if rate != wanted:
            self.log.v2(f"learning rate {wanted:.4g} of the agent is out of bounds, {rate:.4g} is used")
        self._warn_at_bounds(episode, rate)
        entries: dict[str, object] = {OBSERVATION: [shortest(x) for x in seen], ACTION: action}
        if settings:
            entries |= {ACTIONS: dict(zip(self.trained.acts_on[1:], others, strict=True)), SETTINGS: settings}
        history.epochs.setdefault(epoch, Record(None)).meta.update(entries)
        return rate

    def scalars(self, record: Record) -> dict[str, float]:
        """What the agent saw and did before an epoch, and how often that was undone, by names for logs."""
        known = {"learning_rate": record.learning_rate, "action": record.meta.get(ACTION)}
        values = {f"agent/{key}": float(value) for key, value in known.items() if value is not None}
        seen = record.meta.get(OBSERVATION, [])
        values |= {f"agent/{name}": value for name, value in record.meta.get(SETTINGS, {}).items()}
        values |= {f"agent/action/{name}": value for name, value in record.meta.get(ACTIONS, {}).items()}
        named = zip(names(self.trained.observation, self.layer_sizes, self.trained.acts_on), seen, strict=False)
        values |= {f"agent/observation/{name}": float(value) for name, value in named}
        return {**values, "agent/undone": float(len(record.meta.get(UNDONE, [])))}

    def _warn_at_bounds(self, episode: Episode, rate: float) -> None:
        ends = {*bounds(self.trained, episode), self.low, self.high}
        rates = [*(facts.learning_rate for facts in episode.epochs[-PATIENCE:]), rate]
        if len(rates) > PATIENCE and len(set(rates)) == 1 and rate in ends:
            self.log.v2(f"warning: the agent has stayed at the bound {rate:.4g} for {len(rates)} epochs")
