"""What an agent gets for an epoch."""

import math

import numpy as np

from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.episode import Episode, EpochFacts

LOST = 4.0  # times the initial score: what a diverged training counts as


def reward(options: AgentOptions, before: Episode, facts: EpochFacts | None, random: np.random.Generator) -> float:
    """The reward of the epoch after `before`; None for an epoch that diverged.

    "log": ln v(e-1) - ln v(e), all together ln of how many times smaller the score became. "loss": -v(e). "paper":
    gamma (best - v(e)) + lambda (epochs left), best: the lowest score before this epoch.
    """
    if facts is not None and facts.rolled_back:
        return -options.rollback_penalty
    if facts is None and options.divergence_penalty is not None:
        return -penalty(options, random)
    score = LOST * before.initial_score if facts is None else facts.score
    if options.reward == "loss":
        return -score
    if options.reward == "paper":
        return options.gamma_loss * (before.best - score) + options.lambda_epochs * (before.left - 1)
    return math.log(max(before.scores[-1], 1e-30)) - math.log(max(score, 1e-30))


def penalty(options: AgentOptions, random: np.random.Generator) -> float:
    """p, or a + b u with u uniform in [0, 1)."""
    given = options.divergence_penalty
    if isinstance(given, int | float):
        return float(given)
    return float(given[0] + given[1] * random.random())
