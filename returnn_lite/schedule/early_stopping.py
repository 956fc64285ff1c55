"""`early_stopping`: a training ends when its score has stopped getting better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.schedule.history import History

OPTION = "early_stopping"


@dataclass(frozen=True)
class EarlyStopping:
    """A training ends after an epoch if none of the last `patience` ones was better than the best before them.

    measure: a key of the learning-rate file, None: what drives the learning rate; lower is better. Better means lower
    by more than `min_delta`, and by more than the part `min_relative_delta` of the best. Epochs before `first_epoch` do
    not end it.
    """

    patience: int
    measure: str | None = None
    min_delta: float = 0.0
    min_relative_delta: float = 0.0
    first_epoch: int = 1

    @classmethod
    def from_config(cls, config: Config) -> EarlyStopping | None:
        """None without the option. ConfigError for wrong values."""
        value = config.literal(OPTION, None)
        if not value:
            return None
        if not isinstance(value, dict):
            raise ConfigError(OPTION, f'must be a dict such as {{"patience": 5}}, but is {value!r} instead')
        for key in value:
            if key not in cls.__dataclass_fields__:
                known = list(cls.__dataclass_fields__)
                text = f"unknown option{did_you_mean(str(key), known)} (options: {', '.join(known)})"
                raise ConfigError(f'{OPTION}["{key}"]', text)
        if "patience" not in value:
            raise ConfigError(OPTION, f'must have "patience", a number of epochs, but is {value!r} instead')
        return cls(**_checked(value))

    def reason(self, history: History, epoch: int) -> str:
        """Why the training ends after this epoch; "" if it does not. ConfigError if there is no such score."""
        scores = {
            e: score for e in sorted(history.epochs) if e <= epoch and (score := self._score(history, e)) is not None
        }
        if epoch < self.first_epoch or epoch not in scores:
            return ""
        best, best_epoch = math.inf, 0
        for e, score in scores.items():
            if not best_epoch or score < best - max(self.min_delta, self.min_relative_delta * abs(best)):
                best, best_epoch = score, e
        waited = sum(e > best_epoch for e in scores)
        if waited < self.patience:
            return ""
        name = self.measure or history.error_key(epoch)
        return f"{OPTION}: {name} was {best:.6g} in epoch {best_epoch}, and not better in {waited} epochs since"

    def _score(self, history: History, epoch: int) -> float | None:
        error = history.epochs[epoch].error
        if self.measure is None or not error:
            return history.score(epoch)
        if self.measure not in error:
            hint, known = did_you_mean(self.measure, error), ", ".join(sorted(error))
            raise ConfigError(f'{OPTION}["measure"]', f"unknown score {self.measure!r}{hint} ({known})")
        return error[self.measure]


def _checked(value: ConfigDict) -> ConfigDict:
    """The values, if they are of the right kind."""
    measure = value.get("measure")
    if measure is not None and not isinstance(measure, str):
        raise ConfigError(
            f'{OPTION}["measure"]', f"must be a key of the learning-rate file, but is {measure!r} instead"
        )
    for key in ("patience", "first_epoch"):
        whole(f'{OPTION}["{key}"]', value.get(key, 1), low=1)
    for key in ("min_delta", "min_relative_delta"):
        finite(f'{OPTION}["{key}"]', value.get(key, 0.0), low=0)
    return value
