"""What an agent sees of a training: vectors of numbers, all within ±10,000 or less."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from returnn_lite.schedule.episode import Episode, EpochFacts

Observation = Callable[[Episode], "list[float]"]
OBSERVATIONS: dict[str, Observation] = {}
LIMITS = {"paper": 1e4, "fixed": 1e4, "scale_free": 5.0, "dynamics": 5.0}
HUGE = 1e3  # times the initial score, where scores are cut


def observation(name: str) -> Callable[[Observation], Observation]:
    """Registers an observation under its name in the config."""

    def register(function: Observation) -> Observation:
        OBSERVATIONS[name] = function
        return function

    return register


def observe(name: str, episode: Episode) -> np.ndarray:
    """The observation after the episode's last epoch, float32; NaN and infinities are at its limits."""
    limit = LIMITS[name]
    values = np.array(OBSERVATIONS[name](episode), np.float64)
    return np.nan_to_num(values, nan=limit, posinf=limit, neginf=-limit).clip(-limit, limit).astype(np.float32)


def size(name: str, layers: int) -> int:
    """The length of the vector for a network with so many layers with parameters."""
    return {"paper": 2 + layers, "dynamics": 14}.get(name, 10)


@observation("paper")
def paper(episode: Episode) -> list[float]:
    """[score, epochs left, the norm of each layer's gradients], as published."""
    norms = list(episode.epochs[-1].grad_norms) if episode.epochs else [0.0] * len(episode.layer_sizes)
    return [min(episode.scores[-1], HUGE * episode.initial_score), float(episode.left), *norms]


@observation("fixed")
def fixed(episode: Episode) -> list[float]:
    """Ten numbers for any network: relative score, part of the epochs left, RMS gradients, last action."""
    ratio = _log10(episode.scores[-1] / episode.initial_score)
    left = episode.left / episode.num_epochs
    if not episode.epochs:
        return [ratio, left, -2.0, 0.0, -2.0, -2.0, -2.0, -2.0, 0.0, 0.0]
    last = episode.epochs[-1]
    sizes = list(episode.layer_sizes.values())
    q = np.array([_log10(norm / math.sqrt(size)) for norm, size in zip(last.grad_norms, sizes, strict=True)])
    spread = [q.mean(), q.std(), q.min(), q.max(), q[0], q[-1]]
    return [ratio, left, *map(float, spread), _log10(last.grad_norm), last.action]


def _log10(value: float) -> float:
    return math.log10(min(max(value, 1e-6), 1e4)) if value == value else 4.0


@observation("scale_free")
def scale_free(episode: Episode) -> list[float]:
    """Ten numbers without units: how the score and the gradients change, the time, the learning rate within its range,
    the noise of the training losses, and how far the training score is below that of dev."""
    done = len(episode.epochs)
    time = 2 * episode.left / episode.num_epochs - 1
    top = episode.top or 1.0
    if not done:
        return [0.0, 0.0, time, math.log10(episode.start_rate / top) + 1, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    last = episode.epochs[-1]
    before, score = episode.scores[-2:]
    growth = _ln_norm(last) - _ln_norm(episode.epochs[-2]) if done > 1 else 0.0
    return [
        _ln(max(score / episode.initial_score, 1e-4)),
        2 * _ln(score / before),
        time,
        math.log10(last.learning_rate / top) + 1,
        growth,
        _ln_norm(last) / 2,
        3 * last.train_noise,
        2 * _ln(last.train_loss / score),
        last.action,
        0.0,
    ]


@observation("dynamics")
def dynamics(episode: Episode) -> list[float]:
    """Fourteen numbers without units. The learning rate is seen relative to its start only, whose scale the agent
    cannot know; what tells it is how the parameters move: with or against the next gradient, straight or to and fro."""
    done = len(episode.epochs)
    time = 2 * episode.left / episode.num_epochs - 1
    if not done:
        return [0.0, 0.0, time, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    last = episode.epochs[-1]
    before, score = episode.scores[-2:]
    total = _ln(max(score / episode.initial_score, 1e-4))
    rate = math.log10(last.learning_rate / episode.start_rate)
    if last.rolled_back:
        return [total, 0.0, time, rate, 0.0, 0.0, 0.0, last.action, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    known = done > 1 and not episode.epochs[-2].rolled_back
    return [
        total,
        2 * _ln(score / before),
        time,
        rate,
        _ln_norm(last) - _ln_norm(episode.epochs[-2]) if known else 0.0,
        3 * last.train_noise,
        2 * _ln(last.train_loss / score),
        last.action,
        0.0,
        3 * last.alignment,
        4 * last.straightness - 1,
        math.log10(min(max(last.displacement, 1e-6), 1e3)) + 1,
        last.train_trend,
        0.0,
    ]


def _ln(value: float) -> float:
    if value != value:
        return math.nan
    return math.inf if value == math.inf else math.log(value) if value > 0 else -math.inf


def _ln_norm(facts: EpochFacts) -> float:
    return math.log(min(max(facts.grad_norm, 1e-6), 1e4)) if facts.grad_norm == facts.grad_norm else math.nan
