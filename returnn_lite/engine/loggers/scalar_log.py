"""The scalars of a training for all that look at them: `loggers`, `tensorboard_opts`, `tf_log_dir`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.loggers.background import InBackground
from returnn_lite.engine.loggers.csv_file import CsvFiles
from returnn_lite.engine.loggers.services import MLflow, WandB
from returnn_lite.engine.loggers.sink import KEY, Sink, Values
from returnn_lite.engine.loggers.tensorboard import FOLDER, TensorBoard
from returnn_lite.engine.setup import model_name
from returnn_lite.engine.step import StepResult
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

DEFAULT_INTERVAL = 100
RUNS = "runs"


class ScalarLog:
    """Losses and learning rates by step and by epoch, to all `sinks`.

    It never fails a run: where something cannot be written, a line of the log says so, and there it ends.
    """

    makers: ClassVar[dict[str, Callable[[str, ConfigDict], Sink]]] = {
        "csv": CsvFiles,
        "mlflow": lambda model, options: InBackground(MLflow(model, options)),
        "tensorboard": lambda _, options: TensorBoard(options),
        "wandb": WandB,
    }

    def __init__(self, sinks: Sequence[Sink], log: Log, interval: int = DEFAULT_INTERVAL) -> None:
        self.waiting, self.log, self.interval = list(sinks), log, interval
        self.sinks: list[Sink] = []

    @classmethod
    def from_config(cls, config: Config, log: Log, *, of: str | None = None) -> ScalarLog:
        """By `loggers`: names, or a dict of options by name; and TensorBoard by its own options.

        `of`: the file that something else than the config's model is trained into; its scalars get places of their own.
        """
        wanted, board = loggers(config), config.typed_value("tensorboard_opts") or {}
        folder = config.bool_or_other("tf_log_dir", None)
        if (board or folder) and folder is not False:
            wanted.setdefault("tensorboard", {})
        if isinstance(folder, str) and "tensorboard" in wanted:
            wanted["tensorboard"] = {"folder": folder, **wanted["tensorboard"]}
        if config.is_true("use_tensorboard"):
            wanted["tensorboard"] = {"folder": RUNS, **wanted.get("tensorboard", {})}
        if config.is_true("dry_run"):
            wanted = {}
        interval = int(board.get("log_every_n_train_steps", DEFAULT_INTERVAL))
        model = model_name(config) or "training"
        if of is not None:
            if "tensorboard" in wanted:
                wanted["tensorboard"] = {"folder": FOLDER, **wanted["tensorboard"]}
            model, wanted = of, {name: _apart(options, os.path.basename(of)) for name, options in wanted.items()}
        return cls([cls.makers[name](model, options) for name, options in wanted.items()], log, interval)

    def start(self, epoch: int, global_step: int) -> None:
        """Begins a run at this epoch and step: what there is from there on is repeated, and no longer counts."""
        for sink in self.waiting:
            with self._guarded(sink):
                sink.begin(epoch, global_step)
                self.sinks.append(sink)

    def step(self, global_step: int, result: StepResult, learning_rate: float) -> None:
        """The scores of a training step, every so many steps."""
        if self.sinks and global_step % self.interval == 0:
            values = {**step_values(result), "train/learning_rate": learning_rate}
            self._all(lambda sink: sink.step(global_step, values))

    def trained(self, epoch: int, means: Values, learning_rate: float) -> None:
        """The scores of an epoch's training."""
        values = {**_tags("train", means), "epoch/learning_rate": learning_rate}
        self._all(lambda sink: sink.epoch(epoch, values))

    def evaluated(self, epoch: int, dataset: str, means: Values) -> None:
        """The scores of a dataset after an epoch, be it of this run or of the one before."""
        self._all(lambda sink: sink.epoch(epoch, _tags(dataset, means)))

    def noted(self, epoch: int, values: Values) -> None:
        """Further scalars of an epoch, by their whole names."""
        self._all(lambda sink: sink.epoch(epoch, values))

    def go_back(self, epoch: int, global_step: int) -> None:
        """This epoch, which begins with this step, is trained again: what there is of it no longer counts."""
        self._all(lambda sink: sink.begin(epoch, global_step))

    def close(self) -> None:
        """The run is over."""
        self._all(lambda sink: sink.close())

    def _all(self, act: Callable[[Sink], None]) -> None:
        for sink in list(self.sinks):
            with self._guarded(sink):
                act(sink)

    @contextlib.contextmanager
    def _guarded(self, sink: Sink) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # services raise many kinds
            self.log.v1(f"WARNING: {_why_not(sink, exc)}")
            self.sinks = [other for other in self.sinks if other is not sink]


def _why_not(sink: Sink, exc: Exception) -> str:
    """In one line: what gets no scalars, and why."""
    why = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, ImportError):
        return f"{KEY}: no scalars for {sink.name}, whose package is needed: {why}"
    if sink.name == "tensorboard":
        return f"tensorboard_opts: no further scalars: {why}"
    return f"{KEY}: no further scalars for {sink.name}: {why}"


def _apart(options: ConfigDict, name: str) -> ConfigDict:
    """Options of a logger whose files stand beside those of the config's own training."""
    found = dict(options)
    if "base" in found:
        found["base"] = f"{found['base']}.{name}"
    if "folder" in found:
        found["folder"] = os.path.join(str(found["folder"]), name)
    return found


def loggers(config: Config) -> dict[str, ConfigDict]:
    """The option `loggers` as options by name. ConfigError for names that there are not."""
    value, known = config.literal(KEY, None) or [], sorted(ScalarLog.makers)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple | Mapping):
        raise ConfigError(KEY, f"must be a list of names, or a dict of options by name, but is {value!r} instead")
    given = dict(value) if isinstance(value, Mapping) else {name: {} for name in value}
    for name, options in given.items():
        if name not in known:
            raise ConfigError(KEY, f"unknown logger {name!r}{did_you_mean(str(name), known)}: {', '.join(known)}")
        if not isinstance(options or {}, Mapping):
            raise ConfigError(f'{KEY}["{name}"]', f"must be a dict of options, but is {options!r} instead")
    return {name: dict(options or {}) for name, options in given.items()}


def step_values(result: StepResult) -> dict[str, float]:
    """The normalised scores of a step, and its objective."""
    numbers = dict(zip(result.columns, result.scores.tolist(), strict=True))
    values = {}
    for (kind, name), value in numbers.items():
        if kind in ("cost", "error") and numbers["inv_norm", name]:
            values[f"train/{kind}:{name}"] = value / numbers["inv_norm", name]
        elif kind == "loss":
            values["train/loss"] = value
    return values


def _tags(dataset: str, means: Values) -> dict[str, float]:
    return {f"epoch_{dataset}/{key}": value for key, value in means.items()}
