"""What is known of past epochs, as learning-rate controls and schedulers ask for it."""

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.schedule.lr_file import Record
from returnn_lite.schedule.options import Options
from returnn_lite.schedule.scores import choose_error_key


class History:
    """Learning rates and scores by epoch. `epochs`: a record for each that is known."""

    def __init__(self, options: Options, epochs: dict[int, Record]) -> None:
        self.options, self.epochs = options, epochs

    def last_epochs(self, epoch: int, count: int) -> list[int]:
        """The last `count` recorded epochs before `epoch`, ascending."""
        return sorted(before for before in self.epochs if before < epoch)[-count:] if count > 0 else []

    def last_rate(self, epoch: int) -> float | None:
        """The learning rate of the latest epoch before `epoch` that has one."""
        rates = {before: record.learning_rate for before, record in self.epochs.items() if before < epoch}
        return rates[max(known)] if (known := [before for before in rates if rates[before] is not None]) else None

    def score(self, epoch: int) -> float | None:
        """The value under the epoch's error key."""
        key = self.error_key(epoch)
        return None if key is None else self.epochs[epoch].error[key]

    def measure(self, epoch: int, key: str | None) -> float | None:
        """The epoch's score under `key` (None: the one that drives the control); None if there is no score at all."""
        error = self.epochs[epoch].error if epoch in self.epochs else {}
        if key is None or not error:
            return self.score(epoch)
        if key not in error:
            raise ConfigError(
                'lr_scheduler["measure"]', f"unknown score {key!r}{did_you_mean(key, error)} ({', '.join(error)})"
            )
        return error[key]

    def difference(self, old: int, new: int) -> float | None:
        """The new score less the old one; None if one is missing or their keys differ."""
        before, after = self.score(old), self.score(new)
        if before is None or after is None or self.error_key(old) != self.error_key(new):
            return None
        return after - before

    def relative_error(self, old: int, new: int) -> float | None:
        """The difference relative to a score; on request also to the learning rate."""
        difference = self.difference(old, new)
        base = self.score(old if self.options.div_by_old else new)
        if difference is None or base is None:
            return None
        relative = difference / abs(base) if base else difference * float("inf")
        rate = self.last_rate(new + 1)
        if self.options.relative_to_rate and rate is not None and rate > 0:
            relative = relative / (rate / self.options.learning_rate)
        return relative

    def decayed(self, rate: float) -> float:
        """After a decay; not below min_learning_rate."""
        return max(self.options.decay(rate), self.options.min_learning_rate)

    def error_key(self, epoch: int) -> str | None:
        """The score that drives the control, of those that the epoch has."""
        record = self.epochs.get(epoch)
        return choose_error_key(record.error, self.options.error_measures) if record else None
