"""The scores of the steps of a pass over a dataset: collected, checked, written to the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.batch_like import BatchLike
from returnn_lite.engine.log_form import LogForm, Pass
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.profiling import memory_usage
from returnn_lite.engine.progress import Progress
from returnn_lite.engine.report import GRAD_NORM, Column, EpochScores
from returnn_lite.engine.step import BrokenScores, StepResult
from returnn_lite.log import Log


@dataclass
class _Pending:
    step: int
    columns: tuple[Column, ...]
    scores: torch.Tensor
    tags: list[str]
    complete: float | None
    sizes: dict[str, object]


class StepMeter:
    """Collects the scores of an epoch's steps, checks them, and writes the step lines.

    On a GPU the scores are fetched once in a while only (the device need not wait), but each step at verbosity 5.
    """

    FETCH_INTERVAL = 32

    def __init__(
        self,
        progress: Progress,
        scores: EpochScores,
        *,
        log_sizes: bool = False,
        log_memory: bool = False,
        stop_on_nonfinite: bool = True,
    ) -> None:
        self.progress, self.scores = progress, scores
        self.log_sizes, self.log_memory, self.stop_on_nonfinite = log_sizes, log_memory, stop_on_nonfinite
        self._pending: list[_Pending] = []

    def add(self, result: StepResult, batch: BatchLike) -> None:
        """Takes a step's scores; raises BrokenScores if they are known at once (CPU) and not finite."""
        progress = self.progress
        progress.count(batch)
        sizes = self.sizes(batch, result.scores.device)
        row = _Pending(self.progress.steps, result.columns, result.scores, batch.tags, batch.complete, sizes)
        self._pending.append(row)
        on_cpu = result.scores.device.type == "cpu"
        if self.stop_on_nonfinite and on_cpu and not bool(torch.isfinite(result.scores).all()):
            self.flush()

    def sizes(self, batch: BatchLike, device: torch.device) -> dict[str, object]:
        """What `log_batch_size` and `torch_log_memory_usage` show of a step."""
        sizes = self.progress.form.sizes(batch, self.progress.axes) if self.log_sizes else {}
        if self.log_memory and (usage := memory_usage(device)):
            sizes[f"mem_usage:{device.type}"] = usage
        return sizes

    def add_grad_norm(self, name: str, norm: torch.Tensor) -> None:
        """Takes the norm of the gradients of the last step's update."""
        last = self._pending[-1]
        last.columns = (*last.columns, (GRAD_NORM, name))
        last.scores = torch.cat([last.scores, norm.detach().to(last.scores).reshape(1)])

    def end_step(self) -> None:
        """To be called when all work of the step is under way."""
        self.progress.tally.steps += 1
        on_cpu = self._pending and self._pending[-1].scores.device.type == "cpu"
        if on_cpu or self.progress.log.verbosity >= 5 or len(self._pending) >= self.FETCH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Fetches and counts all scores still on the device; raises BrokenScores."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        rows, start = torch.cat([p.scores for p in pending]).cpu().numpy(), 0
        for row in pending:
            end = start + len(row.columns)
            scores = self.scores.add(row.columns, rows[start:end])
            self.progress.step_line(row.step, scores, row.sizes, row.complete)
            if self.stop_on_nonfinite and not _finite(row.columns, rows[start:end]):
                self._broken(row, rows[start:end], scores)
            start = end

    def finish(self, wait_time: float) -> dict[str, float]:
        """Ends the pass; returns its scores. wait_time: seconds spent waiting for data."""
        self.flush()
        self.progress.finish(wait_time)
        means = self.scores.means()
        if self.scores.empty():
            text = f"no targets for {', '.join(self.scores.empty())}: the score is undefined (nan)"
            self.progress.log.v2(f"note: {self.progress.name}: {text}")
        if not self.scores.finite():
            self.progress.log.v1(f"Model seems broken, got inf or nan final score: {means}")
        return means

    def _broken(self, row: _Pending, sums: np.ndarray, scores: Mapping[str, np.float32]) -> None:
        log = self.progress.log
        log.v1("Model seems broken, got inf or nan score.")
        log.v1(f"Accumulated scores: {self.scores.accumulated()}")
        names = [f"{kind}:{name}".rstrip(":") for kind, name in row.columns]
        broken = [(key, value) for key, value in zip(names, sums, strict=True) if not np.isfinite(value)]
        bad = ", ".join(f"{key} {scores.get(key, value)!s}" for key, value in broken)
        shown = ", ".join(row.tags[:10]) + (", …" if len(row.tags) > 10 else "")
        where = f"{self.progress.name}, step {row.step}"
        raise BrokenScores("", f"Inf/nan score in {where}: {bad} (sequences: {shown})")


def _finite(columns: Sequence[Column], row: np.ndarray) -> bool:
    """Whether the losses and errors of a step are finite."""
    return all(np.isfinite(value) for (kind, _), value in zip(columns, row, strict=True) if kind != GRAD_NORM)


def step_meter(config: Config, form: LogForm, what: Pass, log: Log, net: Model) -> StepMeter:
    """The scores and the clock of one pass of `net` over a dataset."""
    interval = config.int("log_batch_interval", 1) or 1
    specs = net.extern_data.specs
    axes = {key: spec.time_dim.name for key, spec in specs.items() if spec.time_dim is not None}
    return StepMeter(
        Progress(form, what, log, axes=axes, interval=interval),
        EpochScores(exp=config.is_true("calculate_exp_loss"), sums=form.sums),
        log_sizes=config.is_true("log_batch_size"),
        log_memory=config.is_true("torch_log_memory_usage"),
        stop_on_nonfinite=what.kind in form.stops and config.is_true("stop_on_nonfinite_train_score", True),
    )
