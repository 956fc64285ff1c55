"""What a learned learning rate is made from: a training so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class EpochFacts:
    """What is known of an epoch. `score`: of dev, after it; `action`: what the agent said, in [-1, 1].

    `grad_norms`: L2 norms of the raw gradients, one per layer with parameters; `train_loss`: mean over the updates;
    `train_noise`: standard deviation over mean of the losses of the updates in its second half.
    """

    learning_rate: float
    score: float
    grad_norms: Sequence[float] = ()
    train_loss: float = math.nan
    train_noise: float = 0.0
    action: float = 0.0

    @property
    def grad_norm(self) -> float:
        """The norm of the gradients of all layers together."""
        return math.sqrt(sum(norm * norm for norm in self.grad_norms))


@dataclass
class Episode:
    """A training: its length in epochs, its score before any training, and its epochs so far.

    `layer_sizes`: numbers in each layer with parameters; `top`: the highest useful learning rate, by a range test;
    `start_rate`: the learning rate that the first action changes.
    """

    num_epochs: int
    initial_score: float
    layer_sizes: Mapping[str, int] = field(default_factory=dict)
    top: float | None = None
    start_rate: float = math.nan
    epochs: list[EpochFacts] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        """The initial score and those of all epochs."""
        return [self.initial_score, *(facts.score for facts in self.epochs)]

    @property
    def left(self) -> int:
        """Epochs to go."""
        return max(self.num_epochs - len(self.epochs), 0)

    @property
    def best(self) -> float:
        """The lowest score so far."""
        return min(self.scores)

    def as_dict(self) -> dict[str, Any]:
        """For reports: rates, actions and scores."""
        return {
            "learning_rates": [facts.learning_rate for facts in self.epochs],
            "actions": [facts.action for facts in self.epochs],
            "scores": self.scores,
        }
