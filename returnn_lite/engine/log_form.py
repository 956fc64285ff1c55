"""The words of a training's log, and of its learning-rate file: those for nets of layers, and those for models written
in torch. Lines come with their verbosity."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol, TypeAlias

import numpy as np

from returnn_lite.engine import report
from returnn_lite.engine.batch_like import BatchLike, num_rows
from returnn_lite.engine.report import hms
from returnn_lite.log import Log
from returnn_lite.version import __version__

Line: TypeAlias = tuple[int, str]
Means: TypeAlias = Mapping[str, float]
Scores: TypeAlias = Mapping[str, np.float32]  # of a step


@dataclass(frozen=True)
class Pass:
    """A pass over a dataset. kind: "train", "eval", "forward" or "search"; num_seqs: None where nobody knows."""

    kind: str
    epoch: int
    dataset: str = "train"
    num_seqs: int | None = None


@dataclass
class Tally:
    """What a pass has done. computing: the share of the time that was not spent waiting for data; `valid`, `padded`:
    frames by data key without and with padding."""

    steps: int = 0
    seconds: float = 0.0
    computing: float = 1.0
    valid: dict[str, int] = field(default_factory=dict)
    padded: dict[str, int] = field(default_factory=dict)

    def add_lengths(self, batch: BatchLike) -> None:
        """Counts the frames of a batch."""
        for key, lengths in batch.lengths.items():
            self.valid[key] = self.valid.get(key, 0) + int(lengths.sum())
            self.padded[key] = self.padded.get(key, 0) + len(lengths) * int(lengths.max(initial=0))


class LogForm(Protocol):
    """How a kind of models is reported. `sums`: the type in which scores are summed over an epoch; `stops`: the kinds
    of passes which `stop_on_nonfinite_train_score` may end."""

    sums: type[np.floating]
    stops: frozenset[str]

    def title(self, epoch: int) -> str:
        """What the epoch is called."""

    def pass_name(self, what: Pass) -> str:
        """What its lines begin with."""

    def run_begins(self, epoch: int, step: int) -> Sequence[Line]: ...
    def epoch_begins(self, epoch: int, step: int, rate: float, effective: float) -> Sequence[Line]: ...
    def pass_begins(self, what: Pass) -> Sequence[Line]: ...
    def step_items(self, what: Pass, scores: Scores, sizes: Mapping[str, object]) -> list[str]:
        """The scores and sizes of a step, as they stand in its line."""

    def sizes(self, batch: BatchLike, axes: Mapping[str, str]) -> dict[str, object]:
        """With `log_batch_size`: the sizes of a batch. axes: the names of the time axes by data key."""

    def times(self, what: Pass, step_seconds: float) -> list[str]:
        """The items of a step's line before the elapsed time."""

    def pass_ends(self, what: Pass, tally: Tally, axes: Mapping[str, str]) -> Sequence[Line]: ...
    def trained(self, epoch: int, means: Means, seconds: float) -> Sequence[Line]: ...
    def saved(self, base: str) -> Sequence[Line]: ...
    def evaluated(self, epoch: int, results: Mapping[str, Means]) -> Sequence[Line]: ...
    def run_ends(self, epoch: int, step: int) -> Sequence[Line]: ...
    def entries(self, dataset: str, means: Means) -> Mapping[str, float | Mapping[str, float]]:
        """The entries of the learning-rate file."""

    def facts(self, device: str, processes: int) -> Mapping[str, object]:
        """What that file says of the machine with each epoch."""

    def end(self, step: int) -> Mapping[str, object]:
        """What that file says of the end of an epoch, after so many steps of the run."""


def write(log: Log, lines: Sequence[Line]) -> None:
    """Writes the lines."""
    for level, text in lines:
        log.write(level, text)


def _share(tally: Tally) -> str:
    return f"{min(max(tally.computing, 0.0), 1.0):.1%} computing time"


class LayerForm:
    """Nets of layers: `train epoch 1, step 0, cost:output 1.2, …`, `epoch 1 score: 1.2 error: 0.1 elapsed: 0:00:01`."""

    sums: type[np.floating] = np.float32
    stops = frozenset({"train", "eval"})

    def __init__(self, is_pretrain: Callable[[int], bool] = lambda epoch: False) -> None:
        self.is_pretrain = is_pretrain

    def title(self, epoch: int) -> str:
        """`pretrain epoch 1`, `epoch 7`."""
        return f"{'pretrain ' if self.is_pretrain(epoch) else ''}epoch {epoch}"

    def pass_name(self, what: Pass) -> str:
        """`pretrain epoch 1`, `train epoch 7`, `epoch 7 'dev' eval`."""
        if what.kind == "train":
            return f"{'pretrain' if self.is_pretrain(what.epoch) else 'train'} epoch {what.epoch}"
        return f"{self.title(what.epoch)} {what.dataset!r} eval" if what.kind == "eval" else self._of_task(what)

    def _of_task(self, what: Pass) -> str:
        return f"{self.title(what.epoch)} {what.kind}"

    def run_begins(self, epoch: int, step: int) -> Sequence[Line]:
        return [(3, f"start training at epoch {epoch}")]

    def epoch_begins(self, epoch: int, step: int, rate: float, effective: float) -> Sequence[Line]:
        return [(4, f"start {self.title(epoch)} with learning rate {rate} ...")]

    def pass_begins(self, what: Pass) -> Sequence[Line]:
        return []

    def step_items(self, what: Pass, scores: Scores, sizes: Mapping[str, object]) -> list[str]:
        items: dict[str, object] = {**scores, **sizes}
        return [f"{key} {items[key]!s}" for key in sorted(items)]

    def sizes(self, batch: BatchLike, axes: Mapping[str, str]) -> dict[str, object]:
        """`max_size:<key>` (longest sequence of the batch) and `num_seqs`."""
        sizes = {f"max_size:{key}": int(lengths.max(initial=0)) for key, lengths in batch.lengths.items()}
        return {**sizes, "num_seqs": num_rows(batch)}

    def times(self, what: Pass, step_seconds: float) -> list[str]:
        return [f"{step_seconds:.3f} sec/step"]

    def pass_ends(self, what: Pass, tally: Tally, axes: Mapping[str, str]) -> Sequence[Line]:
        text = f"finished after {tally.steps} steps, {hms(tally.seconds)} elapsed ({_share(tally)})"
        return [(3, f"{self.pass_name(what)}, {text}")]

    def trained(self, epoch: int, means: Means, seconds: float) -> Sequence[Line]:
        return [(1, report.epoch_line(self.title(epoch), means, seconds))]

    def saved(self, base: str) -> Sequence[Line]:
        return [(4, f"Save model under {base}")]

    def evaluated(self, epoch: int, results: Mapping[str, Means]) -> Sequence[Line]:
        return [(1, report.eval_line(results))] if results else []

    def run_ends(self, epoch: int, step: int) -> Sequence[Line]:
        return [(3, f"Finished training in epoch {epoch}.")]

    def entries(self, dataset: str, means: Means) -> Mapping[str, float | Mapping[str, float]]:
        return report.record_entries(dataset, means)

    def facts(self, device: str, processes: int) -> Mapping[str, object]:
        return {}

    def end(self, step: int) -> Mapping[str, object]:
        return {}


class TorchForm:
    """Models written in torch: `ep 1 train, step 0, ctc 3.237, …`, `Epoch 1: Total train loss: ctc 2.688`, in the
    reference's words, with the losses in the order in which they were marked."""

    sums: type[np.floating] = np.float64
    stops = frozenset({"train"})

    def title(self, epoch: int) -> str:
        """`epoch 7`."""
        return f"epoch {epoch}"

    def pass_name(self, what: Pass) -> str:
        """`ep 1 train`, `ep 1 dev eval`, `ep 1 dev forward`."""
        return f"ep {what.epoch} train" if what.kind == "train" else f"ep {what.epoch} {what.dataset} {what.kind}"

    def run_begins(self, epoch: int, step: int) -> Sequence[Line]:
        return [(3, f"Starting training at epoch {epoch}, global train step {step}")]

    def epoch_begins(self, epoch: int, step: int, rate: float, effective: float) -> Sequence[Line]:
        text = f"global train step {step} with effective learning rate {effective} ..."
        return [(3, f"start epoch {epoch} {text}")]

    def pass_begins(self, what: Pass) -> Sequence[Line]:
        count = [] if what.num_seqs is None else [(5, f"{self.pass_name(what)} num_seqs: {what.num_seqs}")]
        return [(3, f"Evaluating dataset {what.dataset!r}"), *count] if what.kind == "eval" else count

    def step_items(self, what: Pass, scores: Scores, sizes: Mapping[str, object]) -> list[str]:
        shown = [f"{_bare(key)} {number(value)}" for key, value in scores.items() if key != "loss"]
        return [*shown, *(f"{key} {value}" for key, value in sizes.items() if what.kind != "eval")]

    def sizes(self, batch: BatchLike, axes: Mapping[str, str]) -> dict[str, object]:
        """`num_seqs`, and of each time axis `max_size:<its name>` and `sum_size:<its name>`."""
        sizes: dict[str, object] = {"num_seqs": num_rows(batch)}
        for key, axis in axes.items():
            axis = axis.replace(":var:extern_data:", ":var-unk:")  # of axes that the config gives no name
            if key in batch.lengths and f"max_size:{axis}" not in sizes:
                lengths = batch.lengths[key]
                sizes |= {f"max_size:{axis}": int(lengths.max(initial=0)), f"sum_size:{axis}": int(lengths.sum())}
        return sizes

    def times(self, what: Pass, step_seconds: float) -> list[str]:
        return [] if what.kind == "eval" else [f"{step_seconds:.3f} sec/step"]

    def pass_ends(self, what: Pass, tally: Tally, axes: Mapping[str, str]) -> Sequence[Line]:
        if what.kind == "eval":
            return []
        done, first = f"{tally.steps} steps, {hms(tally.seconds)} elapsed", _share(tally)
        if what.kind != "train":
            return [(3, f"{what.kind.capitalize()} {done} ({first})")]
        padded = {key: tally.padded[key] for key in axes if tally.padded.get(key)}
        shares = [f"{key}: {1 - tally.valid[key] / frames:.1%}" for key, frames in padded.items()]
        padding = f"{', '.join(shares)} padding" if shares else ""
        return [(3, f"Epoch {what.epoch}: Trained {done} ({', '.join(filter(None, [first, padding]))})")]

    def trained(self, epoch: int, means: Means, seconds: float) -> Sequence[Line]:
        return [(3, f"Epoch {epoch}: Total train loss: {losses_text(means)}")]

    def saved(self, base: str) -> Sequence[Line]:
        return [(4, f"Save model under {base}.pt"), (4, f"Save optimizer under {base}.opt.pt")]

    def evaluated(self, epoch: int, results: Mapping[str, Means]) -> Sequence[Line]:
        texts = [f"{name}: {losses_text(means)}" for name, means in results.items()]
        return [(1, f"Epoch {epoch} evaluation: {' '.join(texts) or '(No evaluations.)'}")]

    def run_ends(self, epoch: int, step: int) -> Sequence[Line]:
        return [(3, f"Finished training at epoch {epoch}, global train step {step}")]

    def entries(self, dataset: str, means: Means) -> Mapping[str, float | Mapping[str, float]]:
        return {f"{dataset}_loss_{_bare(key)}": value for key, value in means.items()}

    def facts(self, device: str, processes: int) -> Mapping[str, object]:
        several = {"size": processes} if processes > 1 else None
        return {
            "returnn": f"returnn_lite {__version__}",
            "torch": version("torch"),
            "hostname": platform.node(),
            "cpu": platform.processor() or platform.machine(),
            "device": device,
            "distributed": several,
        }

    def end(self, step: int) -> Mapping[str, object]:
        return {"global_train_step_end": step}


def _bare(key: str) -> str:
    """ "cost:ctc" -> "ctc"; "grad_norm:p2" stays."""
    return key.removeprefix("cost:").removeprefix("error:")


def number(value: float | np.floating) -> str:
    """Three digits behind the point where they tell something, else an exponent."""
    small = 1e-3 <= abs(float(value)) <= 1e3
    return f"{value:.3f}" if small else f"{value:.3e}"


def losses_text(means: Means) -> str:
    """`ctc 2.688 ctc_aux 4.106`; the number alone where there is a single loss."""
    values = [number(value) for value in means.values()]
    return values[0] if len(values) == 1 else " ".join(f"{_bare(k)} {number(v)}" for k, v in means.items())
