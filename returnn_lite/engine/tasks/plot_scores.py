"""Task `plot_scores`: the scores and learning rates of a training so far, as a picture."""

import re
from collections.abc import Mapping

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule.control import LearningRateControl
from returnn_lite.schedule.learned import ACTION, UNDONE
from returnn_lite.schedule.lr_file import SETTINGS, Record

Line = tuple[list[int], list[float]]  # epochs, values
Panels = dict[str, dict[str, Line]]  # what is drawn together -> lines by their names
SCORE = re.compile(r"([^:]+?)_((?:score|error|loss).*)")  # "dev_score_output": the dataset, and what it is
RATE, UNDONE_RATE, ACTIONS = "learning rate", "undone", "agent's action"


def plot_scores_task(config: Config, log: Log) -> None:
    """Draws what the learning-rate file has into `output_file`. ConfigError if there is nothing yet."""
    name = config.value("learning_rate_file", None)
    if not name:
        raise ConfigError("learning_rate_file", "must be the file with the scores of a training, but is not set")
    records = LearningRateControl.from_config(config, log).epochs
    panels = score_panels(records)
    if not panels:
        raise ConfigError("learning_rate_file", f"{name!r} has no scores yet")
    filename = config.value("output_file", "scores.png")
    draw(panels, filename)
    log.v1(f"{filename}: {', '.join(panels)}")


def score_panels(records: Mapping[int, Record]) -> Panels:
    """Each loss and error with a line for each dataset, and last the learning rates, with those of epochs that were
    undone, and what an agent made them by."""
    panels: Panels = {}
    for epoch, record in sorted(records.items()):
        for key, value in record.error.items():
            match = SCORE.match(key)
            if match is not None:
                add(panels.setdefault(match[2], {}), match[1], epoch, float(value))
    rates: dict[str, Line] = {}
    actions: dict[str, Line] = {}
    settings: Panels = {}
    for epoch, record in sorted(records.items()) if panels else ():
        if record.learning_rate:
            add(rates, RATE, epoch, float(record.learning_rate))
        for failed in record.meta.get(UNDONE, ()):
            add(rates, UNDONE_RATE, epoch, float(failed))
        if ACTION in record.meta:
            add(actions, ACTIONS, epoch, float(record.meta[ACTION]))
        for name, value in record.meta.get(SETTINGS, {}).items():
            add(settings.setdefault(name, {}), name, epoch, float(value))
    last = {RATE: rates, ACTIONS: actions, **settings}
    return panels | {name: lines for name, lines in last.items() if lines}


def add(lines: dict[str, Line], name: str, epoch: int, value: float) -> None:
    """One more point of a line."""
    epochs, values = lines.setdefault(name, ([], []))
    epochs.append(epoch)
    values.append(value)


def draw(panels: Panels, filename: str) -> None:
    """A picture in the format that the file's name says; the best epoch of each line is marked."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("task", 'plot_scores needs matplotlib; install the extra "plot"') from None
    figure = Figure(figsize=(8, 1 + 2.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, (epochs, values) in lines.items():
            if name == UNDONE_RATE:
                axis.plot(epochs, values, "x", color="red", label=name)
                continue
            (drawn,) = axis.plot(epochs, values, label=name, marker="." if len(epochs) < 40 else None)
            if name != title:
                best = min(range(len(values)), key=lambda i, known=values: known[i])  # type: ignore[misc]
                axis.plot([epochs[best]], [values[best]], "o", color=drawn.get_color(), fillstyle="none")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if title == RATE:
            axis.set_yscale("log")
        if list(lines) != [title]:
            axis.legend()
    axes[-1].set_xlabel("epoch")
    try:
        figure.savefig(filename)
    except (OSError, ValueError) as error:
        raise ConfigError("output_file", f"cannot write {filename!r}: {error}") from None
