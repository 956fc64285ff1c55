"""Scores of steps and epochs, and the log lines about them."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

F = np.float32
# (kind, loss name); kind "cost", "error", "inv_norm", "loss" (the objective, no name), or "grad_norm" (of an update)
Column = tuple[str, str]
GRAD_NORM, UPDATES = "grad_norm", "updates"
NORMS = {"cost": "inv_norm", "error": "inv_norm", GRAD_NORM: UPDATES}  # what the sums of a kind are divided by
Number = TypeVar("Number", bound=np.floating)


class EpochScores:
    """Sums of losses and errors over the steps of an epoch, of the type `sums`; each step's values are float32."""

    def __init__(self, *, exp: bool = False, sums: type[np.floating] = np.float32) -> None:
        self.exp, self.kind = exp, sums
        self._sums: dict[Column, np.floating] = {}

    def add(self, columns: Sequence[Column], row: np.ndarray) -> dict[str, np.float32]:
        """Adds the numbers of one step (unnormalised sums); returns the step's normalised scores by log key."""
        values = {column: F(value) for column, value in zip(columns, row, strict=True)}
        scores: dict[str, np.float32] = {}
        with np.errstate(all="ignore"):
            for (kind, name), value in values.items():
                added: np.floating = value
                if kind in ("cost", "error"):
                    scores[f"{kind}:{name}"] = ratio(value, values["inv_norm", name])
                    added = _as_of_reference(value, values["inv_norm", name]) if self.kind is F else value
                elif kind == "inv_norm":
                    added = F(1) / (F(1) / value) if self.kind is F else value
                elif kind == GRAD_NORM:
                    scores[f"{kind}:{name}"] = value
                    self._add((UPDATES, name), F(1))
                else:
                    scores[kind] = value
                self._add((kind, name), added)
            return self._with_exp(scores)

    def _add(self, column: Column, value: np.floating) -> None:
        self._sums[column] = self._sums.get(column, self.kind(0)) + self.kind(value)

    def become_sum_of(self, parts: "Sequence[EpochScores]") -> None:
        """The sums of all parts of the epoch, in this order."""
        sums = [part._sums for part in parts]
        self._sums = {}
        for column, value in ((column, value) for part in sums for column, value in part.items()):
            self._add(column, value)

    def means(self) -> dict[str, float]:
        """The epoch's scores: {"cost:output": sum of values / sum of normalisations, …}. NaN: nothing was counted."""
        with np.errstate(all="ignore"):
            means = {
                f"{kind}:{name}": total / norm if (norm := self._sums[NORMS[kind], name]) else F(math.nan)
                for (kind, name), total in self._sums.items()
                if kind in NORMS
            }
            return {key: float(value) for key, value in self._with_exp(means).items()}

    def empty(self) -> list[str]:
        """The losses of which nothing was counted: their normalisations are 0 in all steps."""
        return [name for (kind, name), total in self._sums.items() if kind == "inv_norm" and not total]

    def finite(self) -> bool:
        """Whether no sum of losses is NaN or infinite."""
        sums = [value for (kind, _), value in self._sums.items() if kind != GRAD_NORM]
        return bool(np.isfinite(sums).all())

    def accumulated(self) -> dict[str, float]:
        """The sums so far, for messages about broken scores."""
        return {f"{kind}:{name}".rstrip(":"): float(value) for (kind, name), value in self._sums.items()}

    def _with_exp(self, scores: dict[str, Number]) -> dict[str, Number]:
        """With `exp` also the exponential of each loss, right behind it."""
        found: dict[str, Number] = {}
        for key, value in scores.items():
            found[key] = value
            if self.exp and key.startswith("cost:"):
                found[f"{key}:exp"] = np.exp(value)
        return found


def ratio(value: np.float32, inv_norm: np.float32) -> np.float32:
    """A step's score; NaN where nothing was counted."""
    return value * (F(1) / inv_norm) if inv_norm else F(math.nan)


def _as_of_reference(value: np.float32, inv_norm: np.float32) -> np.float32:
    """The sum, rounded as the reference rounds it."""
    factor = F(1) / inv_norm
    return value * factor / factor if inv_norm else value


def by_kind(means: Mapping[str, float], kind: str) -> dict[str, float]:
    """The scores of one kind: {"cost:aux": 1.2, …}, "cost" -> {"aux": 1.2}."""
    return {key.split(":", 1)[1]: value for key, value in means.items() if key.startswith(kind + ":")}


def score_or_dict(scores: Mapping[str, float]) -> float | dict[str, float] | None:
    """The number itself where there is a single loss, else the dict; None where there is none."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return dict(scores) or None


def record_entries(dataset: str, means: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The entries of the learning-rate file: {"dev_score": {"cost:output": 1.2}, "dev_error": {…}}."""
    kinds = {f"{dataset}_score": "cost:", f"{dataset}_error": "error:", f"{dataset}_grad_norm": "grad_norm:"}
    named = {key: {name: v for name, v in means.items() if name.startswith(kind)} for key, kind in kinds.items()}
    return {key: scores for key, scores in named.items() if scores}


def score_text(scores: Mapping[str, float]) -> str:
    """`None`, `1.2`, or `aux 1.3 exp 3.7 output 1.2 exp 3.3` (losses sorted)."""
    value = score_or_dict(scores)
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{name.rsplit(':', 1)[-1]} {value[name]}" for name in sorted(value))


def hms(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def epoch_line(prefix: str, means: Mapping[str, float], seconds: float) -> str:
    """`epoch 3 score: 1.2 error: 0.1 elapsed: 0:00:01`."""
    score, error = score_text(by_kind(means, "cost")), score_text(by_kind(means, "error"))
    return f"{prefix} score: {score} error: {error} elapsed: {hms(seconds)}"


def eval_line(results: Mapping[str, Mapping[str, float]]) -> str:
    """`dev: score 1.2 error 0.1 eval: score …`, in the order of the datasets."""
    return " ".join(
        f"{name}: score {score_text(by_kind(means, 'cost'))} error {score_text(by_kind(means, 'error'))}"
        for name, means in results.items()
    )
