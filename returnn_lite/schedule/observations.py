"""What an agent sees of a training: vectors of named numbers, all within ±10,000 or less."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from returnn_lite.schedule.agent_options import RATE
from returnn_lite.schedule.episode import Episode, EpochFacts
from returnn_lite.schedule.levers import seen

Observation = Callable[[Episode], "dict[str, float]"]
OBSERVATIONS: dict[str, Observation] = {}
LIMITS = {"paper": 1e4, "fixed": 1e4, "scale_free": 5.0, "dynamics": 5.0}
HUGE = 1e3  # times the initial score, where scores are cut

# The orders of the vectors, which agents' files depend on.
SCALE_FREE = (
    "score", "score_change", "time_left", "rate", "gradient_change", "gradient", "noise", "train_over_dev",
    "last_action", "start",
)  # fmt: skip
DYNAMICS = (
    "score", "score_change", "time_left", "rate", "gradient_change", "noise", "train_over_dev", "last_action",
    "start", "alignment", "straightness", "displacement", "train_trend", "undone",
)  # fmt: skip


def observation(name: str) -> Callable[[Observation], Observation]:
    """Registers an observation under its name in the config."""

    def register(function: Observation) -> Observation:
        OBSERVATIONS[name] = function
        return function

    return register


def observe(name: str, episode: Episode, acts_on: Sequence[str] = (RATE,)) -> np.ndarray:
    """The observation after the episode's last epoch, float32; NaN and infinities are at its limits. Last are the
    settings, besides the learning rate, that an agent acts on."""
    limit = LIMITS[name]
    values = np.array([*OBSERVATIONS[name](episode).values(), *seen(episode, acts_on).values()], np.float64)
    return np.nan_to_num(values, nan=limit, posinf=limit, neginf=-limit).clip(-limit, limit).astype(np.float32)


def names(name: str, layer_sizes: Mapping[str, int], acts_on: Sequence[str] = (RATE,)) -> list[str]:
    """What the numbers of the vector are called, for a network with these layers with parameters."""
    return [*OBSERVATIONS[name](Episode(1, 1.0, layer_sizes)), *acts_on[1:]]


@observation("paper")
def paper(episode: Episode) -> dict[str, float]:
    """[score, epochs left, the norm of each layer's gradients], as published."""
    norms = list(episode.epochs[-1].grad_norms) if episode.epochs else [0.0] * len(episode.layer_sizes)
    by_layer = {f"grad_norm/{layer}": norm for layer, norm in zip(episode.layer_sizes, norms, strict=True)}
    score = min(episode.scores[-1], HUGE * episode.initial_score)
    return {"score": score, "epochs_left": float(episode.left), **by_layer}


@observation("fixed")
def fixed(episode: Episode) -> dict[str, float]:
    """Ten numbers for any network: relative score, part of the epochs left, RMS gradients (log10), last action."""
    gradients = dict.fromkeys(("mean", "std", "min", "max", "first", "last"), -2.0) | {"std": 0.0}
    norm = action = 0.0
    if episode.epochs:
        last = episode.epochs[-1]
        sizes = list(episode.layer_sizes.values())
        q = np.array([_log10(norm / math.sqrt(size)) for norm, size in zip(last.grad_norms, sizes, strict=True)])
        spread = [q.mean(), q.std(), q.min(), q.max(), q[0], q[-1]]
        gradients = dict(zip(gradients, map(float, spread), strict=True))
        norm, action = _log10(last.grad_norm), last.action
    return {
        "score": _log10(episode.scores[-1] / episode.initial_score),
        "time_left": episode.left / episode.num_epochs,
        **{f"gradients_{key}": value for key, value in gradients.items()},
        "gradient": norm,
        "last_action": action,
    }


def _log10(value: float) -> float:
    return math.log10(min(max(value, 1e-6), 1e4)) if value == value else 4.0


@observation("scale_free")
def scale_free(episode: Episode) -> dict[str, float]:
    """Ten numbers without units: how the score and the gradients change, the time, the learning rate within its range,
    the noise of the training losses, and how far the training score is below that of dev."""
    done = len(episode.epochs)
    top = episode.top or 1.0
    found = dict.fromkeys(SCALE_FREE, 0.0) | {"time_left": 2 * episode.left / episode.num_epochs - 1}
    if not done:
        return found | {"rate": math.log10(episode.start_rate / top) + 1, "start": 1.0}
    last = episode.epochs[-1]
    before, score = episode.scores[-2:]
    return found | {
        "score": _ln(max(score / episode.initial_score, 1e-4)),
        "score_change": 2 * _ln(score / before),
        "rate": math.log10(last.learning_rate / top) + 1,
        "gradient_change": _ln_norm(last) - _ln_norm(episode.epochs[-2]) if done > 1 else 0.0,
        "gradient": _ln_norm(last) / 2,
        "noise": 3 * last.train_noise,
        "train_over_dev": 2 * _ln(last.train_loss / score),
        "last_action": last.action,
    }


@observation("dynamics")
def dynamics(episode: Episode) -> dict[str, float]:
    """Fourteen numbers without units. The learning rate is seen relative to its start only, whose scale the agent
    cannot know; what tells it is how the parameters move: with or against the next gradient, straight or to and fro."""
    done = len(episode.epochs)
    found = dict.fromkeys(DYNAMICS, 0.0) | {"time_left": 2 * episode.left / episode.num_epochs - 1}
    if not done:
        return found | {"start": 1.0}
    last = episode.epochs[-1]
    before, score = episode.scores[-2:]
    found |= {
        "score": _ln(max(score / episode.initial_score, 1e-4)),
        "rate": math.log10(last.learning_rate / episode.start_rate),
        "last_action": last.action,
    }
    if last.rolled_back:
        return found | {"undone": 1.0}
    known = done > 1 and not episode.epochs[-2].rolled_back
    return found | {
        "score_change": 2 * _ln(score / before),
        "gradient_change": _ln_norm(last) - _ln_norm(episode.epochs[-2]) if known else 0.0,
        "noise": 3 * last.train_noise,
        "train_over_dev": 2 * _ln(last.train_loss / score),
        "alignment": 3 * last.alignment,
        "straightness": 4 * last.straightness - 1,
        "displacement": math.log10(min(max(last.displacement, 1e-6), 1e3)) + 1,
        "train_trend": last.train_trend,
    }


def _ln(value: float) -> float:
    if value != value:
        return math.nan
    return math.inf if value == math.inf else math.log(value) if value > 0 else -math.inf


def _ln_norm(facts: EpochFacts) -> float:
    return math.log(min(max(facts.grad_norm, 1e-6), 1e4)) if facts.grad_norm == facts.grad_norm else math.nan
