"""`use_last_best_model`: from which earlier epoch to go on, if that was better than the latest."""

import math
from dataclasses import dataclass

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.schedule.history import History


@dataclass(frozen=True)
class LastBest:
    """The option's keys. Scores: lower is better."""

    modulo: int = 1  # looked at in epochs divisible by this, or if the latest score is above filter_score
    filter_score: float = math.inf
    first_epoch: int = 1
    only_last_epochs: int | None = None
    only_last_n: int = -1  # -1: no limit
    min_score_dist: float = 0.0

    @classmethod
    def from_config(cls, config: Config) -> "LastBest | None":
        """None if the option is off."""
        value: ConfigValue = config.literal("use_last_best_model", None)
        if not value:
            return None
        options = value if isinstance(value, dict) else {}
        for key in options:
            if key not in cls.__dataclass_fields__:
                hint = did_you_mean(key, cls.__dataclass_fields__)
                raise ConfigError(f'use_last_best_model["{key}"]', f"unknown option{hint}")
        return cls(**options)

    def epoch(self, history: History, epoch: int) -> int | None:
        """The epoch whose model `epoch` should start from, if not from the one before."""
        before = history.last_epochs(epoch, epoch)
        scores = {e: score for e in before if (score := history.score(e)) is not None}
        if not scores:
            return None
        last = max(scores)
        latest, key = scores[last], history.error_key(last)
        if epoch % self.modulo != 0 and not latest > self.filter_score:
            return None
        first = max(self.first_epoch, epoch - self.only_last_epochs if self.only_last_epochs else 1)
        found = [
            (score, e)
            for e, score in scores.items()
            if e >= first and history.error_key(e) == key and score <= self.filter_score
        ]
        found = found[-self.only_last_n :] if self.only_last_n >= 1 else found
        better = [item for item in found if item[0] + self.min_score_dist < latest]
        best = min(better)[1] if better else None
        return None if best == epoch - 1 else best
