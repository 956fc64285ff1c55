"""What the numbers of an agent's action set: the learning rate, the momentum, the learning rates of parameter groups.

All move on logarithmic scales: the momentum m on that of 1 - m, a group's learning rate, as a multiple of the common
one, on its own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.schedule.actions import clipped, rate_of
from returnn_lite.schedule.agent_options import GROUP, MOMENTUM, RATE, AgentOptions
from returnn_lite.schedule.episode import Episode

OPTION = 'lr_agent["acts_on"]'
CLOSEST = 1e-9  # to 1 that a momentum is read as
Values = Mapping[str, float]  # {"rate": learning rate, "momentum": …, "group:NAME": multiple of the learning rate}


def values_of(options: AgentOptions, episode: Episode, actions: Sequence[float]) -> dict[str, float]:
    """What the actions, one for each of `acts_on`, say of the coming epoch."""
    rate, *others = actions
    pairs = zip(options.acts_on[1:], others, strict=True)
    return {RATE: rate_of(options, episode, rate)} | {name: value(options, episode, name, a) for name, a in pairs}


def value(options: AgentOptions, episode: Episode, name: str, action: float) -> float:
    """A momentum or multiple: within its bounds from -1, the lowest, to 1; with the action "step" the last one changed
    by `action` x `momentum_step` or `group_step` decades."""
    low, high = (on_scale(name, end) for end in bounds(options, name))
    step = options.momentum_step if name == MOMENTUM else options.group_step
    if options.action == "step":
        place = on_scale(name, episode.setting(name)) + step * clipped(action)
    else:
        place = low + (high - low) * (clipped(action) + 1) / 2
    return float(f"{from_scale(name, min(max(place, low), high)):.9g}")


def bounds(options: AgentOptions, name: str) -> tuple[float, float]:
    """The lowest and the highest value."""
    if name == MOMENTUM:
        low, high = options.momentum_range
        return low, high
    return 1 / options.group_range, options.group_range


def on_scale(name: str, number: float) -> float:
    """In decades: -log10(1 - m) of a momentum, log10 of a learning rate or multiple."""
    if name == MOMENTUM:
        return -math.log10(1 - min(max(number, 0.0), 1 - CLOSEST))
    return math.log10(number)


def from_scale(name: str, place: float) -> float:
    """The number itself."""
    return float(1 - 10**-place if name == MOMENTUM else 10**place)


def means(name: str, rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each column, taken on the scale."""
    return [from_scale(name, statistics.fmean(on_scale(name, x) for x in column)) for column in zip(*rows, strict=True)]


def seen(episode: Episode, acts_on: Sequence[str]) -> dict[str, float]:
    """Where each of them is, relative to its start, in decades; 0 where a training lacks it. The learning rate is for
    the observations to tell."""
    known = [name for name in acts_on[1:] if name in episode.settings]
    moved = {name: on_scale(name, episode.setting(name)) - on_scale(name, episode.settings[name]) for name in known}
    return dict.fromkeys(acts_on[1:], 0.0) | moved


def require(acts_on: Sequence[str], settings: Values, optimizers: Sequence[str], path: str = OPTION) -> None:
    """ConfigError unless a training has all that an agent acts on: `settings` are those it has."""
    groups = [key.removeprefix(GROUP) for key in settings if key.startswith(GROUP)]
    for name in acts_on[1:]:
        if name in settings:
            continue
        if name == MOMENTUM:
            text = f"needs an optimizer with a momentum without a schedule, but {', '.join(optimizers)} has none"
        else:
            wanted = name.removeprefix(GROUP)
            known = f"the names are {', '.join(groups)}" if groups else "no group has a name"
            text = f'needs a group of `param_groups` with "name": {wanted!r}, but {known}{did_you_mean(wanted, groups)}'
        raise ConfigError(path, f'"{name}", which the agent acts on, {text}')
