"""Rows and tables of an agent's evaluation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.schedule.agent_options import RATE
from returnn_lite.schedule.levers import Values, means

HEADER = "| Method | Best Final Loss | Avg Final Loss | Divergent case exists | counts |\n|---|---|---|---|---|\n"
DEAD = 0.95  # of the initial score: such a training has learnt nothing
EXPLAINED = """
Loss: of dev after the last epoch. Average: over the trainings that stayed finite. Counts: not finite / ended at or
above the score before training / ended above 0.95 of it, of all. A training diverges in the first two ways.
"""


@dataclass
class Row:
    """Trainings of one kind. `group`: agent, baseline, varied, grid, scheduler; `agent_lr`: of which table."""

    name: str
    trainings: list[dict[str, Any]]
    group: str = "baseline"
    agent_lr: float | None = None
    file: str | None = None

    @staticmethod
    def is_finite(training: dict[str, Any]) -> bool:
        """Whether the training reached its end."""
        return not training["diverged"]

    @property
    def finals(self) -> list[float]:
        """The final losses of trainings that reached their end."""
        return [training["scores"][-1] for training in self.trainings if self.is_finite(training)]

    def counts(self) -> tuple[int, int, int]:
        """How many trainings were not finite, ended at or above their start, ended close to it."""
        ends = [(t["scores"][-1], t["scores"][0]) for t in self.trainings if self.is_finite(t)]
        high = sum(end >= start for end, start in ends)
        return len(self.trainings) - len(ends), high, sum(end > DEAD * start for end, start in ends)

    def mean_values(self, *, relative: bool = False) -> list[Values]:
        """The means of the learning rates and of what else was set, epoch by epoch, each on its own scale.

        `relative`: of learning rates over the factor by which the first one was varied.
        """
        length = max(len(training["learning_rates"]) for training in self.trainings)
        whole = [training for training in self.trainings if len(training["learning_rates"]) == length]
        factors = [training["varied"][0] if relative else 1.0 for training in whole]
        rates = [[rate / f for rate in t["learning_rates"]] for t, f in zip(whole, factors, strict=True)]
        columns = {RATE: means(RATE, rates)}
        for name in whole[0].get("settings", {}):
            columns[name] = means(name, [training["settings"][name] for training in whole])
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def cells(self) -> str:
        """The row's cells but the first."""
        infinite, high, dead = self.counts()
        best = min(self.finals, default=math.inf)
        mean = statistics.fmean(self.finals) if self.finals else math.inf
        counts = f"{infinite} / {high} / {dead} of {len(self.trainings)}"
        return f"{best:.4f} | {mean:.4f} | {'yes' if infinite or high else 'no'} | {counts}"

    def as_dict(self) -> dict[str, Any]:
        """All numbers."""
        infinite, high, dead = self.counts()
        mean = statistics.fmean(self.finals) if self.finals else math.inf
        numbers = {"best": min(self.finals, default=math.inf), "average": mean}
        numbers |= {"not_finite": infinite, "above_start": high, "near_start": dead}
        about = {"name": self.name, "group": self.group, "agent_lr": self.agent_lr, "file": self.file}
        rates = [values[RATE] for values in self.mean_values()]
        return {**about, **numbers, "mean_rates": rates, "trainings": self.trainings}


def report(rows: Sequence[Row], agent_lrs: Sequence[float], session: Any) -> str:
    """All tables as Markdown: baselines first, then one table for each learning rate of agents and schedulers."""
    agents = [row for row in rows if row.group == "agent"]
    parts = [f"# Evaluation of {len(agents)} agent(s), {session.num_epochs} epochs\n{EXPLAINED}"]
    if session.top is not None:
        parts.append(f"Highest useful learning rate by the range test: {session.top:.3g}.\n")
    parts.append("## Agents and baselines\n\n" + table([r for r in rows if r.group in ("agent", "baseline")]))
    if varied := [row for row in rows if row.group == "varied"]:
        parts.append("## The same, with trainings varied as those that agents learnt from\n\n" + table(varied))
    for rate in sorted({*agent_lrs, *(row.agent_lr for row in agents if row.agent_lr)}):
        of_rate = [row for row in rows if row.group in ("agent", "scheduler") and row.agent_lr == rate]
        first = [row for row in of_rate if row.group == "agent"]
        grids = [row for row in rows if row.group == "grid"]
        later = [row for row in of_rate if row.group == "scheduler"]
        parts.append(f"## Agent LR = initial LR = {rate:g}\n\n" + table([*first, *grids, *later]))
    if len(agents) < 2:
        parts.append("One agent is one case: others of other seeds may be better or worse; train at least two.\n")
    return "\n".join(parts)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    return HEADER + "".join(f"| {row.name} | {row.cells()} |\n" for row in rows)
