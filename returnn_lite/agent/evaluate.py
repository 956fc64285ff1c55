"""Task `eval_lr_agent`: an agent beside constant learning rates, schedules, chance, and its own schedule repeated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from returnn_lite.agent.environment import variation
from returnn_lite.agent.picture import draw
from returnn_lite.agent.runs import Run, by_agent, by_chance, constant, listed, play, relative, untrained
from returnn_lite.agent.session import Session
from returnn_lite.agent.tables import Row, report
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import write_atomically
from returnn_lite.log import Log
from returnn_lite.schedule.agent_file import KEY, AgentFile

FIRST_SEED = 9001
EVAL = "lr_agent_eval"
OF_TOP = 5  # a good constant learning rate: the range test's over this


@dataclass(frozen=True)
class EvalOptions:
    """`lr_agent_eval`. `agents`: further agents' files; `agent_lrs`: initial learning rates of schedulers, each
    with a table; `grid`: the lowest and the highest constant learning rate of `grid_points`, equal factors apart."""

    agents: Sequence[str] = ()
    agent_lrs: Sequence[float] = (5e-4, 1e-3, 5e-3, 1e-2)
    grid_points: int = 100
    grid: Sequence[float] = (1e-6, 1.0)
    schedulers: Sequence[str] = ("ConstantLR", "OneCycleLR")
    optimizers: Sequence[str] = ("SGD", "Adadelta", "Adam")
    seeds: int = 5
    random_runs: int = 20

    @classmethod
    def from_config(cls, config: Config) -> EvalOptions:
        """ConfigError for unknown keys."""
        given = config.literal(EVAL, None) or {}
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(f'{EVAL}["{key}"]', f"unknown option{did_you_mean(key, known)}")
        return cls(**given)


def optimizer_of(name: str) -> dict[str, Any]:
    """torch's optimizer of this name, with its defaults; "config": the config's is kept."""
    return {} if name == "config" else {"optimizer": {"class": f"torch.{name}"}}


def eval_lr_agent_task(config: Config, log: Log) -> None:
    """Trains with all the learning rates to be compared; writes `<agent>.eval.json`, `.eval.md` and `.eval.png`."""
    path = config.value(KEY, None)
    if not path:
        raise ConfigError(KEY, f"`{KEY}` must name the file of the agent to evaluate")
    options = EvalOptions.from_config(config)
    agents = {name: AgentFile.load(name) for name in (path, *options.agents)}
    trained = agents[path]
    config.set("lr_agent", {**trained.info["options"], **(config.literal("lr_agent", None) or {})})
    session = Session.open(config, log)
    for agent in agents.values():
        session.check_acts_on(agent.options.acts_on)
    if session.described()["layers"] == trained.info["layers"]:
        session.top = trained.info["top"]
    else:
        session.find_top()
    comparison = Comparison(session, options, log)
    comparison.with_agents(agents)
    comparison.without_agents()
    text = report(comparison.rows, options.agent_lrs, session)
    content = {"top": session.top, "rows": [row.as_dict() for row in comparison.rows]}
    write_atomically(path + ".eval.json", lambda file: file.write(json.dumps(content, indent=1).encode()))
    write_atomically(path + ".eval.md", lambda file: file.write(text.encode()))
    draw(comparison.rows, path + ".eval.png", log)
    log.v1(text)


@dataclass
class Comparison:
    """The rows of the tables."""

    session: Session
    options: EvalOptions
    log: Log
    rows: list[Row] = field(default_factory=list)

    @property
    def seeds(self) -> range:
        """Seeds that no agent has seen."""
        return range(FIRST_SEED, FIRST_SEED + self.options.seeds)

    def add(self, name: str, runs: Iterable[Run], **about: Any) -> Row:
        """Plays the runs; their row."""
        row = Row(name, play(self.session, list(runs)), **about)
        self.rows.append(row)
        self.log.v2(f"{name}: {row.cells()}")
        return row

    def over_seeds(self, name: str, choice: Any, changes: Mapping[str, Any] | None = None, **about: Any) -> Row:
        """A row of one training a seed."""
        back = about.pop("rolls_back", False)
        return self.add(name, [Run(seed, choice, changes or {}, rolls_back=back) for seed in self.seeds], **about)

    def over_varied(self, name: str, choice: Any, agent: AgentFile, *, rolls_back: bool = False) -> Row:
        """The same, with trainings varied as those that the agent learnt from."""
        drawn = {seed: variation(np.random.default_rng([seed, 1]), agent.options) for seed in self.seeds}
        runs = [Run(seed, choice, {}, varied, rolls_back) for seed, varied in drawn.items()]
        return self.add(name, runs, group="varied")

    def with_agents(self, agents: Mapping[str, AgentFile]) -> None:
        """The agents, and what they must be better than to be worth their training."""
        for path, agent in agents.items():
            session_top, agent_top = self.session.top, agent.info["top"]
            same = self.session.described()["layers"] == agent.info["layers"]
            self.session.top = agent_top if same else session_top
            mode, seed, rate = agent.options.mode, agent.info["seed"], agent.options.agent_lr
            about: dict[str, Any] = {"agent_lr": rate, "group": "agent", "file": path}
            row = self.over_seeds(
                f"Agent ({mode}, seed {seed})", by_agent(agent), rolls_back=agent.options.rolls_back, **about
            )
            self.over_seeds(f"Untrained agent ({mode}, seed {seed})", untrained(agent), agent_lr=rate, group="baseline")
            self.over_seeds(f"Blind replay (seed {seed})", listed(row.mean_values()), agent_lr=rate, group="baseline")
            if agent.options.vary_start > 1:
                self.with_varied(f"seed {seed}", agent)
            if self.session.top is not None:
                name = f"Range test's constant {self.session.top / OF_TOP:.3g} (seed {seed})"
                self.over_seeds(name, constant(self.session.top / OF_TOP), agent_lr=rate, group="baseline")
            self.session.top = session_top
        seeds = range(FIRST_SEED, FIRST_SEED + self.options.random_runs)
        self.add("Random rates", [Run(seed, by_chance(seed)) for seed in seeds], group="baseline")

    def with_varied(self, name: str, agent: AgentFile) -> None:
        """Where the scale of the learning rate is not known: an agent that reacts against repetitions of its mean."""
        row = self.over_varied(f"Agent ({name})", by_agent(agent), agent, rolls_back=agent.options.rolls_back)
        self.over_varied(f"Untrained agent ({name})", untrained(agent), agent)
        self.over_varied(f"Blind replay of its mean ({name})", listed(row.mean_values()), agent)
        means = row.mean_values(relative=True)
        self.over_varied(f"Blind replay of its mean, from the start ({name})", relative(means), agent)
        if self.session.top is not None:
            rate = self.session.top / OF_TOP
            self.over_varied(f"Range test's constant {rate:.3g} ({name})", constant(rate), agent)

    def without_agents(self) -> None:
        """Constant learning rates and schedules."""
        best = self.grid("config", group="baseline", name="Grid, the agent's optimizer")
        self.over_seeds(f"Best constant of the grid, {best:.4g}", constant(best), group="baseline")
        for scheduler in self.options.schedulers:
            self.scheduled("config", scheduler, best, group="baseline")
        for optimizer in self.options.optimizers:
            self.grid(optimizer, group="grid", name=optimizer)
        for rate in self.options.agent_lrs:
            for scheduler in self.options.schedulers:
                for optimizer in self.options.optimizers:
                    self.scheduled(optimizer, scheduler, rate, group="scheduler")

    def grid(self, optimizer: str, *, name: str, group: str) -> float:
        """Constant learning rates, each once; the best of them."""
        low, high = (math.log(end) for end in self.options.grid)
        rates = [float(rate) for rate in np.exp(np.linspace(low, high, self.options.grid_points))]
        runs = [Run(FIRST_SEED, constant(rate), optimizer_of(optimizer)) for rate in rates]
        row = self.add(name, runs, group=group)
        finals = [training["scores"][-1] if row.is_finite(training) else math.inf for training in row.trainings]
        return rates[int(np.argmin(finals))]

    def scheduled(self, optimizer: str, scheduler: str, rate: float, *, group: str) -> None:
        """torch's scheduler with this (for OneCycleLR: highest) learning rate."""
        options: dict[str, Any] = {"class": scheduler, "interval": "epoch"}
        if scheduler == "OneCycleLR":
            options |= {"interval": "step", "max_lr": rate, "total_steps": "auto", "cycle_momentum": False}
        changes = {**optimizer_of(optimizer), "learning_rate": rate, "lr_scheduler": options}
        own = "" if optimizer == "config" else f"{optimizer}-Sch, "
        self.over_seeds(f"{own}{scheduler}" + (f" {rate:.4g}" if not own else ""), constant(rate), changes,
                        agent_lr=rate if own else None, group=group)  # fmt: skip
