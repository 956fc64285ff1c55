"""A picture of learned schedules, and of what they lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.agent.tables import Row
from returnn_lite.log import Log
from returnn_lite.schedule.agent_options import MOMENTUM
from returnn_lite.schedule.episode import MORE_CAREFUL

SHOWN = ("agent", "baseline")


def draw(rows: Sequence[Row], path: str, log: Log) -> None:
    """Learning rates of all agents' trainings by epoch, those that were undone as crosses, and the mean dev losses of
    agents and baselines; a note where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.v1('note: no picture without matplotlib, which is in the extra "plot"')
        return
    agents = [row for row in rows if row.group == "agent"]
    others = dict.fromkeys(name for row in agents for name in row.trainings[0].get("settings", {}))
    figure = Figure(figsize=(11, 4.5 + 3 * len(others)), layout="constrained")
    (rates, losses), *more = figure.subplots(1 + len(others), 2, squeeze=False)
    for name, (panel, unused) in zip(others, more, strict=True):
        draw_setting(panel, name, agents)
        unused.set_axis_off()
    for number, row in enumerate(agents):
        for place, training in enumerate(row.trainings):
            values = training["learning_rates"]
            label = row.name if not place else None
            rates.plot(range(1, len(values) + 1), values, color=f"C{number}", alpha=0.6, label=label)
            undone = failed_rates(training)
            rates.plot(list(undone), list(undone.values()), "x", color=f"C{number}", label=None)
    for row in rows:
        if row.group in SHOWN and len({len(t["scores"]) for t in row.trainings}) == 1 and "Grid" not in row.name:
            columns = zip(*(training["scores"] for training in row.trainings), strict=True)
            means = [sum(column) / len(column) for column in columns]
            losses.plot(means, label=row.name, linewidth=2 if row.group == "agent" else 1)
    rates.set(yscale="log", xlabel="epoch", ylabel="learning rate", title="learned schedules (x: undone)")
    losses.set(yscale="log", xlabel="epochs done", ylabel="dev loss, mean over seeds")
    for panel in (rates, losses):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.savefig(path, format="png", dpi=110)


def draw_setting(panel: Any, name: str, agents: Sequence[Row]) -> None:
    """What else the agents set, by epoch. `panel`: axes of matplotlib."""
    for number, row in enumerate(agents):
        for values in (training.get("settings", {}).get(name, []) for training in row.trainings):
            panel.plot(range(1, len(values) + 1), values, color=f"C{number}", alpha=0.6)
    panel.set(xlabel="epoch", ylabel=name, yscale="linear" if name == MOMENTUM else "log")
    panel.grid(alpha=0.3)


def failed_rates(training: Mapping[str, Any]) -> dict[int, float]:
    """The learning rates of the epochs that were undone, by epoch: the record has what was left of them."""
    return {epoch: training["learning_rates"][epoch - 1] / MORE_CAREFUL for epoch in training.get("undone", ())}
