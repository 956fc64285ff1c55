"""The learning rate of each epoch, from the records of past epochs."""

import os
from collections.abc import Mapping

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.controls import Control, control_class
from returnn_lite.schedule.history import History
from returnn_lite.schedule.lr_file import SETTINGS, Record
from returnn_lite.schedule.options import Options
from returnn_lite.schedule.scores import flatten


class LearningRateControl(History):
    """Learning rates and scores by epoch, kept in the learning rate file.

    Records of the file win over the config's `learning_rates`; an epoch without a record gets its learning rate from
    `control` and keeps it. ConfigError on a file that cannot be read.
    """

    def __init__(
        self, options: Options, control: Control, *, filename: str | None, saves: bool = True, log: Log
    ) -> None:
        self.control, self.filename, self.saves, self.log = control, filename, saves, log
        super().__init__(options, self._load())
        for epoch, rate in options.learning_rates.items():
            record = self.epochs.setdefault(epoch, Record(rate))
            record.learning_rate = record.learning_rate or rate

    @classmethod
    def from_config(cls, config: Config, log: Log) -> "LearningRateControl":
        """By the config's options, with what the learning rate file already holds. ConfigError for unknown controls."""
        options, filename = Options.from_config(config), config.value("learning_rate_file", None)
        control = control_class(options.control).from_config(config, log)
        return cls(options, control, filename=filename, saves=not config.bool("dry_run", False), log=log)

    def __repr__(self) -> str:
        file = f", file={self.filename!r}" if self.filename else ""
        return f"LearningRateControl({self.options.control}, learning_rate={self.options.learning_rate!r}{file})"

    def _load(self) -> dict[int, Record]:
        if not self.filename:
            self.log.v4("Learning-rate-control: no file specified, not saving history (no proper restart possible)")
            return {}
        if self.saves:
            lr_file.require_writable(self.filename)
        if not os.path.exists(self.filename):
            self.log.v4(f"Learning-rate-control: file {self.filename} does not exist yet")
            return {}
        self.log.v4(f"Learning-rate-control: loading file {self.filename}")
        return lr_file.read(self.filename)

    # The learning rate of an epoch

    def get(self, epoch: int) -> float:
        """The recorded learning rate, else the control's, which is then recorded."""
        record = self.epochs.get(epoch)
        if record is not None and record.learning_rate is not None:
            return record.learning_rate
        rate = self._next_rate(epoch)
        self._set_rate(epoch, rate)
        return rate

    def can_tell(self, epoch: int) -> bool:
        """Whether `get` knows the learning rate: it is on record, or what is on record suffices for the control."""
        known = epoch in self.epochs and self.epochs[epoch].learning_rate is not None
        return known or self.control.can_tell(self, epoch)

    def for_epoch(self, epoch: int, *, pretrain_epochs: int = 0) -> float:
        """As a run wants it: epochs up to `pretrain_epochs`, and the one after, do not follow the control."""
        if self.options.always or not pretrain_epochs or epoch > pretrain_epochs + 1:
            return self.get(epoch)
        rate = self.options.pretrain_learning_rate if epoch <= pretrain_epochs else self.options.learning_rate
        if epoch not in self.epochs:
            self._set_rate(epoch, rate)
        return rate

    def override(self, epoch: int, learning_rate: float, *, pretrain_epochs: int = 0) -> None:
        """Sets the learning rate of an epoch, whatever its record says. ConfigError if `for_epoch` might ignore it."""
        if pretrain_epochs and not self.options.always:
            raise ConfigError(
                'network["#config"]["learning_rate"]', "with pretraining needs use_learning_rate_control_always = True"
            )
        old = self.epochs[epoch].learning_rate if epoch in self.epochs else None
        self.log.v2(f"Overwrite learning rate for epoch {epoch}: {old} -> {learning_rate}")
        self._set_rate(epoch, learning_rate)

    def record(self, epoch: int, learning_rate: float) -> None:
        """Sets the learning rate where something else is in charge of it. Warns if the file had another."""
        old = self.epochs[epoch].learning_rate if self.epochs.get(epoch, Record(None)).error else None
        if old is not None and abs(old - learning_rate) > 1e-6 * abs(learning_rate):
            self.log.v2(f"Warning: epoch {epoch} is trained with learning rate {learning_rate}, {old} is on record.")
        self._set_rate(epoch, learning_rate)

    def _set_rate(self, epoch: int, rate: float) -> None:
        self.epochs.setdefault(epoch, Record(None)).learning_rate = float(rate)

    def _next_rate(self, epoch: int) -> float:
        held = self._rate_too_new_to_change(epoch)
        return self.control.rate(self, epoch) if held is None else held

    def _rate_too_new_to_change(self, epoch: int) -> float | None:
        """The latest learning rate, if not yet in force for the minimum number of epochs; else None."""
        count = self.options.min_epochs_per_rate
        rates = [self.epochs[before].learning_rate for before in self.last_epochs(epoch, count)]
        too_new = count > 1 and bool(rates) and (len(set(rates)) >= 2 or len(rates) < count)
        return rates[-1] if too_new else None

    def settings(self, epoch: int) -> dict[str, float]:
        """What the control sets in an epoch besides the learning rate, as recorded with it."""
        return dict(self.epochs[epoch].meta.get(SETTINGS, {})) if epoch in self.epochs else {}

    # Scores, meta entries, the file

    def set_scores(self, epoch: int, scores: Mapping[str, float | Mapping[str, float]]) -> None:
        """Adds scores, such as {"dev_score": 0.3}; several losses, given as a dict, get a key each."""
        flat = flatten(scores)
        self.get(epoch)
        self.epochs[epoch].error.update(flat)
        if epoch == 1:
            self.log.v4(f"Learning-rate-control: error key {self.error_key(epoch)!r} from {flat!r}")

    def check_measures(self, epoch: int) -> None:
        """Warns if the epoch has none of the scores that `learning_rate_control_error_measure` names."""
        error, names = self.epochs[epoch].error if epoch in self.epochs else {}, self.options.error_measures
        if error and names and not any(key in error for name in names for key in (name, f"{name}_output")):
            hint, known = did_you_mean(names[0], error), ", ".join(sorted(error))
            text = f"unknown score {names[0]!r}{hint}; scores: {known}; {self.error_key(epoch)!r} is used"
            self.log.v1(f"WARNING: learning_rate_control_error_measure: {text}")

    def set_meta(self, epoch: int, meta: Mapping[str, object]) -> None:
        """Adds meta entries; numbers of numpy and torch become plain ones."""
        self.get(epoch)
        self.epochs[epoch].meta.update((key, lr_file.shortest(value)) for key, value in meta.items())

    def text(self) -> str:
        """The content of the learning rate file."""
        return lr_file.to_text(self.epochs)

    def save(self) -> None:
        """Writes the file, if there is one."""
        if self.filename and self.saves:
            lr_file.write(self.filename, self.epochs)
