"""The highest useful learning rate of a network: short trainings with a rate that rises from update to update."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.learned import RANGE_TEST_RUNS
from returnn_lite.trials.shared_data import SharedData
from returnn_lite.trials.trial import Trial
from returnn_lite.trials.watch import EpochWatch, mean_losses, short

WINDOW = 11  # updates over which losses are averaged
PLATEAU = 0.98  # of the first loss: a sweep that does not get below it was too short
NOT_FINITE = 1e30
LARGE_STEPS = {"gradientdescent", "customgradientdescent", "momentum", "sgd", "adadelta", "adagrad", "normalizedsgd"}


@dataclass
class RangeTest:
    """`top`: the median of the rates at which the smoothed loss was lowest; `tops`: of each training."""

    top: float
    tops: list[float]
    epochs: int
    updates: int


def range_test(config: Config, shared: SharedData, options: AgentOptions, seed: int, log: Log) -> RangeTest:
    """Sweeps the learning rate in a few trainings with other initial values each."""
    trial = Trial(config, shared, EpochWatch.of(replace(options, observation="fixed"), config))
    updates = options.range_test_epochs * max(trial.trainer.network.steps_per_epoch(), 1)
    low, high = options.range_test_rates or usual_rates(trial.updater.optimizers.values())
    tops, runs = [], options.range_test_runs or RANGE_TEST_RUNS
    for run in range(runs):
        losses = sweep(trial, seed + run, rising(low, high, updates), options.range_test_epochs)
        curve = smoothed(losses, updates)
        best = int(curve.argmin())
        if curve[best] > PLATEAU * curve[0]:
            log.v2(f"warning: the range test's losses stay at {curve[0]:.4g}: more epochs (range_test_epochs) may help")
        tops.append(rising(low, high, updates)(global_train_step=best))
    top = short(statistics.median(tops))
    shown = ", ".join(f"{value:.3g}" for value in tops)
    log.v2(f"range test: highest useful learning rate {top:.3g} (of {runs} trainings: {shown})")
    return RangeTest(top, tops, runs * options.range_test_epochs, runs * updates)


def usual_rates(optimizers: Iterable[Optimizer]) -> tuple[float, float]:
    """Where to look: large rates for rules whose steps are proportional to gradients, small ones for the others."""
    return (1e-3, 10.0) if large_steps(optimizers) else (1e-5, 1.0)


def large_steps(optimizers: Iterable[Optimizer]) -> bool:
    """Whether all of these are rules with steps proportional to gradients, or otherwise for rates around 1."""
    return all(optimizer.name.removeprefix("torch.").lower() in LARGE_STEPS for optimizer in optimizers)


def rising(low: float, high: float, updates: int) -> Callable[..., float]:
    """The rate of an update, as a `dynamic_learning_rate`: from `low` to `high` in equal factors."""

    def rate(*, global_train_step: int, **_: Any) -> float:
        return float(low * (high / low) ** (int(global_train_step) / max(updates - 1, 1)))

    return rate


def sweep(trial: Trial, seed: int, rate: Callable[..., float], epochs: int) -> list[float]:
    """The losses of all updates of one training, as far as it came."""
    trial.reset(seed, dynamic_learning_rate=rate)
    losses: list[float] = []
    for _ in range(epochs):
        facts = trial.epoch(1.0)
        if trial.watch.losses:
            losses += mean_losses(trial.watch.losses).tolist()
        if facts is None:
            break
    return losses


def smoothed(losses: Sequence[float], updates: int) -> np.ndarray:
    """Means over a centred window that is cut at the ends; what is missing or not finite counts as huge."""
    values = np.full(max(updates, len(losses)), NOT_FINITE)
    values[: len(losses)] = np.nan_to_num(losses, nan=NOT_FINITE, posinf=NOT_FINITE)
    half = WINDOW // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])
