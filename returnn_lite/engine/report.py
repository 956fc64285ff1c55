"""Scores of steps and epochs, and the log lines about them."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.log import Log

F = np.float32
Column = tuple[str, str]  # (kind, loss name); kind "cost", "error", "inv_norm", or "loss" (the objective, no name)

SLOW_DATA = 0.9  # less computing time than that is worth a hint
ENOUGH_SECONDS = 30.0  # shorter passes say nothing about that
FASTER_DATA = (
    'it may help to read the dataset in several processes, {"class": "MultiProcDataset", "dataset": …,'
    ' "num_workers": 4, "buffer_size": 10}, or to write what is computed from it to HDF files (tools/hdf_dump.py)'
)


class EpochScores:
    """Sums of losses and errors over the steps of an epoch, in float32 like each step's values."""

    def __init__(self, *, exp: bool = False) -> None:
        self.exp = exp
        self._sums: dict[Column, np.float32] = {}

    def add(self, columns: Sequence[Column], row: np.ndarray) -> dict[str, np.float32]:
        """Adds the numbers of one step (unnormalised sums); returns the step's normalised scores by log key."""
        values = {column: F(value) for column, value in zip(columns, row, strict=True)}
        scores: dict[str, np.float32] = {}
        with np.errstate(all="ignore"):
            for (kind, name), value in values.items():
                if kind in ("cost", "error"):
                    scores[f"{kind}:{name}"] = ratio(value, values["inv_norm", name])
                    value = _as_of_reference(value, values["inv_norm", name])
                elif kind == "inv_norm":
                    value = F(1) / (F(1) / value)
                else:
                    scores[kind] = value
                self._sums[kind, name] = self._sums.get((kind, name), F(0)) + value
            return self._with_exp(scores)

    def join(self, other: "EpochScores") -> None:
        """Adds the sums of another part of the epoch."""
        for column, value in other._sums.items():
            self._sums[column] = self._sums.get(column, F(0)) + value

    def means(self) -> dict[str, float]:
        """The epoch's scores: {"cost:output": sum of values / sum of normalisations, …}. NaN: nothing was counted."""
        with np.errstate(all="ignore"):
            means = {
                f"{kind}:{name}": total / norm if (norm := self._sums["inv_norm", name]) else F(math.nan)
                for (kind, name), total in self._sums.items()
                if kind in ("cost", "error")
            }
            return {key: float(value) for key, value in self._with_exp(means).items()}

    def empty(self) -> list[str]:
        """The losses of which nothing was counted: their normalisations are 0 in all steps."""
        return [name for (kind, name), total in self._sums.items() if kind == "inv_norm" and not total]

    def finite(self) -> bool:
        """Whether no sum is NaN or infinite."""
        return bool(np.isfinite(list(self._sums.values())).all())

    def accumulated(self) -> dict[str, float]:
        """The sums so far, for messages about broken scores."""
        return {f"{kind}:{name}".rstrip(":"): float(value) for (kind, name), value in self._sums.items()}

    def _with_exp(self, scores: dict[str, np.float32]) -> dict[str, np.float32]:
        if self.exp:
            scores |= {f"{key}:exp": np.exp(value) for key, value in scores.items() if key.startswith("cost:")}
        return scores


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
    kinds = {f"{dataset}_score": "cost:", f"{dataset}_error": "error:"}
    named = {key: {name: v for name, v in means.items() if name.startswith(kind)} for key, kind in kinds.items()}
    return {key: scores for key, scores in named.items() if scores}


def loss_entries(dataset: str, means: Mapping[str, float]) -> dict[str, float]:
    """The same for models written in torch: {"dev_loss_ctc": 1.2, "dev_loss_fer": 0.1}."""
    kinds = ("cost", "error")
    return {f"{dataset}_loss_{name}": value for kind in kinds for name, value in by_kind(means, kind).items()}


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


class Progress:
    """Clock of one pass over a dataset; writes its step lines and its last line."""

    def __init__(self, prefix: str, log: Log, *, interval: int = 1) -> None:
        self.prefix, self.log, self.interval = prefix, log, interval
        self.start = self._last = time.monotonic()
        self.steps = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def step_line(self, step: int, items: Mapping[str, object], complete: float | None) -> None:
        """Writes the line of every `interval`-th step (verbosity 5); complete: fraction done, if known, in (0, 1]."""
        if self.log.verbosity < 5 or step % self.interval:
            return
        elapsed, self._last, took = self.elapsed, time.monotonic(), time.monotonic() - self._last
        shown = [f"{key} {items[key]!s}" for key in sorted(items)]
        parts = [f"{self.prefix}, step {step}", *shown, f"{took:.3f} sec/step, elapsed {hms(elapsed)}"]
        if complete is not None:
            parts.append(f"exp. remaining {hms(elapsed / max(complete, 1e-9) - elapsed)}, complete {complete:.2%}")
        self.log.v5(", ".join(parts))

    def finish(self, wait_time: float) -> None:
        """Writes the last line; wait_time: seconds spent waiting for data."""
        elapsed = self.elapsed
        computing = 1 - wait_time / elapsed if elapsed > 0 else 1.0
        share = f"({min(max(computing, 0.0), 1.0):.1%} computing time)"
        self.log.v3(f"{self.prefix}, finished after {self.steps} steps, {hms(elapsed)} elapsed {share}")
        if computing < SLOW_DATA and elapsed > ENOUGH_SECONDS:
            waited = f"{self.prefix}: {wait_time:.0f} of {elapsed:.0f} seconds were spent waiting for data"
            self.log.v2(f"{waited}; {FASTER_DATA}")


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
