"""Task `plot_schedule`: the learning rates and other scheduled numbers of all steps of a run, as a picture."""

from collections.abc import Iterator

import torch

from returnn_lite.config import Config
from returnn_lite.engine import data
from returnn_lite.engine.models.source import model_source
from returnn_lite.engine.setup import final_epoch
from returnn_lite.engine.steering import steer
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule.control import LearningRateControl
from returnn_lite.schedule.learned import UNDONE

Curves = dict[str, tuple[list[float], list[float]]]  # name -> (epochs that have passed, values)


def plot_schedule_task(config: Config, log: Log) -> None:
    """Draws into `output_file` what the config would use; nothing is trained, and no file of the run is changed."""
    curves: Curves = {}
    for time, values in scheduled_values(config, log):
        for name, value in values.items():
            times, known = curves.setdefault(name, ([], []))
            times.append(time)
            known.append(value)
    filename = config.value("output_file", "schedule.png")
    draw(curves, filename, undone_rates(config, log))
    log.v1(f"{filename}: {', '.join(curves)}")


def scheduled_values(config: Config, log: Log) -> Iterator[tuple[float, dict[str, float]]]:
    """(epochs that have passed, numbers in force) of every step; an epoch has as many steps as the first one.

    Scores are those of the learning rate file, if there are some.
    """
    dataset = data.require_dataset(config, "train", log)
    data.complete_extern_data(config, [dataset])
    source = model_source(config)
    net = source.build(source.describe(1), epoch=1, device=torch.device("cpu"), log=log)
    steps = data.count_batches(dataset, data.train_batching(config, net, 1))
    control = LearningRateControl.from_config(config, log)
    updater = Updater(
        net.params,
        config,
        param_options=net.param_options,
        initial_learning_rate=control.options.learning_rate,
        log=log,
        network=net,
        steps_per_epoch=lambda: steps,
    )
    last = final_epoch(config)
    if not last:
        raise ConfigError("num_epochs", "must be the number of epochs to draw, but is 0 instead")
    for epoch in range(1, last + 1):
        if epoch > 1 and not control.can_tell(epoch):
            log.v1(f"note: the learning rates from epoch {epoch} on depend on scores that are not there yet")
            return
        rate = control.for_epoch(epoch)
        updater.start_epoch(epoch, control.measure(epoch - 1, updater.measure))
        settings = control.settings(epoch)
        steer(updater.optimizers, settings)
        for step in range(steps):
            values = updater.preview((epoch - 1) * steps + step, rate, (step + 1) / steps)
            yield epoch - 1 + step / steps, values | settings


def undone_rates(config: Config, log: Log) -> tuple[list[float], list[float]]:
    """(epochs that had passed, learning rates) of what a learned control tried and undid."""
    records = LearningRateControl.from_config(config, log).epochs.items()
    failed = [(epoch - 1.0, rate) for epoch, record in sorted(records) for rate in record.meta.get(UNDONE, ())]
    return [epoch for epoch, _ in failed], [rate for _, rate in failed]


def draw(curves: Curves, filename: str, undone: tuple[list[float], list[float]] = ([], [])) -> None:
    """A picture with one panel a name, in the format that the file's name says; crosses in the first for what was
    undone."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("task", 'plot_schedule needs matplotlib; install the extra "plot"') from None
    figure = Figure(figsize=(8, 1 + 2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (name, (times, values)) in zip(panels, curves.items(), strict=True):
        panel.plot(times, values, drawstyle="steps-post")
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    if undone[0]:
        panels[0].plot(*undone, "x", color="red", label="undone")
        panels[0].legend()
        panels[0].set_yscale("log")
    panels[-1].set_xlabel("epochs")
    try:
        figure.savefig(filename)
    except (OSError, ValueError) as error:
        raise ConfigError("output_file", f"cannot write {filename!r}: {error}") from None
