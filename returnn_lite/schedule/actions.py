"""From what an agent says, a number in [-1, 1], to the learning rate of the coming epoch."""

from __future__ import annotations

import math

from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.episode import Episode


def clipped(action: float) -> float:
    """Into [-1, 1]; 0 for NaN."""
    return 0.0 if action != action else min(max(float(action), -1.0), 1.0)


def bounds(options: AgentOptions, episode: Episode) -> tuple[float, float]:
    """The lowest and the highest learning rate that the agent can choose."""
    if options.action == "step":
        return episode.start_rate / options.lowest, episode.start_rate * options.highest
    return options.lr_range


def rate_of(options: AgentOptions, episode: Episode, action: float) -> float:
    """The learning rate. "linear", "log": -1 is the lowest of `lr_range`, 1 the highest; "step": the last learning
    rate changed by `action` x `action_step` decades."""
    low, high = bounds(options, episode)
    action = clipped(action)
    part = (action + 1) / 2
    if options.action == "linear":
        return low + (high - low) * part
    if options.action == "log":
        return 10 ** (math.log10(low) + (math.log10(high) - math.log10(low)) * part)
    last = episode.epochs[-1].learning_rate if episode.epochs else episode.start_rate
    return min(max(last * 10 ** (options.action_step * action), low), high)
