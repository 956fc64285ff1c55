"""What a learned learning rate is made from: a training so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WORSE_THAN_BEST, WORSE = 3.0, 1.3  # times the best score, times the initial one: an epoch to be taken back
MORE_CAREFUL = 0.1  # times the learning rate, after that


@dataclass
class EpochFacts:
    """What is known of an epoch. `score`: of dev, after it; `action`: what the agent said, in [-1, 1].

    `grad_norms`: L2 norms of the raw gradients, one per layer with parameters; `train_loss`: mean over the updates;
    `train_noise`: standard deviation over mean of the losses of the updates in its second half; `train_trend`: ln of
    the mean loss of its first third over that of its last. Of the parameters' way, if it was looked at: `alignment`:
    mean cosine between a gradient and the step before it; `straightness`: distance from start to end over the length
    of the way; `displacement`: the distance over the norm at the start. `rolled_back`: the epoch diverged.
    `settings`: what else the agent had set, by its names.
    """

    learning_rate: float
    score: float
    grad_norms: Sequence[float] = ()
    train_loss: float = math.nan
    train_noise: float = 0.0
    action: float = 0.0
    train_trend: float = 0.0
    alignment: float = 0.0
    straightness: float = 0.0
    displacement: float = 0.0
    rolled_back: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def grad_norm(self) -> float:
        """The norm of the gradients of all layers together."""
        return math.sqrt(sum(norm * norm for norm in self.grad_norms))


@dataclass
class Episode:
    """A training: its length in epochs, its score before any training, and its epochs so far.

    `layer_sizes`: numbers in each layer with parameters; `top`: the highest useful learning rate, by a range test;
    `start_rate`: the learning rate that the first action changes; `settings`: the momentum, and multiples of the
    learning rates of groups, as the config has them.
    """

    num_epochs: int
    initial_score: float
    layer_sizes: Mapping[str, int] = field(default_factory=dict)
    top: float | None = None
    start_rate: float = math.nan
    epochs: list[EpochFacts] = field(default_factory=list)
    settings: Mapping[str, float] = field(default_factory=dict)

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

    def setting(self, name: str) -> float:
        """The latest value of one of `settings`."""
        return self.epochs[-1].settings.get(name, self.settings[name]) if self.epochs else self.settings[name]

    def is_bad(self, score: float) -> bool:
        """Whether an epoch that ends with this score is to be taken back."""
        return not math.isfinite(score) or score > WORSE_THAN_BEST * self.best or score > WORSE * self.initial_score

    @property
    def undone(self) -> list[int]:
        """The numbers of the epochs that were taken back, from 1."""
        return [epoch for epoch, facts in enumerate(self.epochs, start=1) if facts.rolled_back]

    def as_dict(self) -> dict[str, object]:
        """For reports: rates, actions, scores, which epochs were taken back, and what else was set."""
        names = dict.fromkeys(name for facts in self.epochs for name in facts.settings)
        values = {name: [facts.settings.get(name, self.settings[name]) for facts in self.epochs] for name in names}
        return {
            "learning_rates": [facts.learning_rate for facts in self.epochs],
            "actions": [facts.action for facts in self.epochs],
            "scores": self.scores,
            "undone": self.undone,
            **({"settings": values} if values else {}),
        }
