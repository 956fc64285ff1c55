"""Going on with a training where its state lacks something: a file of a format, or where its schedules are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from returnn_lite.engine.checkpoints.checkpoint import OWN_FORMAT, save_model
from returnn_lite.engine.checkpoints.formats import FORMATS
from returnn_lite.log import Log
from returnn_lite.optim.positions import fast_forward, has_position
from returnn_lite.optim.state import SavedState, State
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.control import LearningRateControl


@dataclass(frozen=True)
class Saved:
    """The state that a training goes on from: its last epoch's record, as text, and the rest."""

    record: str
    state: State

    def is_behind(self, control: LearningRateControl, epoch: int) -> bool:
        """Whether the control knows more of this epoch than was saved."""
        known = control.epochs.get(epoch)
        return known is not None and lr_file.to_text({epoch: known}) != self.record


def restore_records(control: LearningRateControl, state: State, epoch: int) -> Saved | None:
    """Takes over the scores of a resume state which did not reach the learning-rate file, and writes that.

    Returns the state with its record of `epoch`, from which the training goes on; None if it has none.
    """
    records = lr_file.from_text(state["learning_rates"], "optimizer state")
    saved = Saved(lr_file.to_text({epoch: records[epoch]}), state) if epoch in records else None
    for e, record in records.items():
        if e == epoch or not control.filename:
            known = control.epochs.setdefault(e, record)
            known.error = {**record.error, **known.error}
            known.meta = {**record.meta, **known.meta}
    control.save()
    return saved


def missing_formats(base: str, formats: Iterable[str]) -> list[str]:
    """Those of the formats that an epoch has no file of: of a run that was killed between them, or wrote fewer."""
    suffixes = {name: f".{OWN_FORMAT}" if name == OWN_FORMAT else FORMATS[name].suffix for name in formats}
    return [name for name, suffix in suffixes.items() if not os.path.isfile(base + suffix)]


def complete_formats(
    base: str,
    params: Mapping[str, torch.Tensor],
    info: SavedState,
    formats: Iterable[str],
    log: Log,
    *,
    as_torch: bool = False,
) -> None:
    """Writes the files of an epoch that are missing, from its parameters."""
    lacking = missing_formats(base, formats)
    if lacking:
        log.v2(f"note: {base} is missing in the form {', '.join(lacking)}; writing it now")
        save_model(base, params, info=info, formats=lacking, as_torch=as_torch)


def steps_of_epochs(control: LearningRateControl, last: int, global_step: int) -> list[int]:
    """The steps of the epochs 1 to `last`, which ended at `global_step`: as recorded, and else all alike."""
    known = {}
    for epoch in range(1, last + 1):
        steps = control.epochs[epoch].meta.get("epoch_num_train_steps") if epoch in control.epochs else None
        if isinstance(steps, int):
            known[epoch] = steps
    rest, unknown = global_step - sum(known.values()), last - len(known)
    if rest < 0 or not unknown and rest:  # the records are those of another run
        known, rest, unknown = {}, global_step, last
    bounds = [rest * i // max(unknown, 1) for i in range(unknown + 1)]
    shares = iter(end - start for start, end in zip(bounds, bounds[1:], strict=False))
    return [known[epoch] if epoch in known else next(shares) for epoch in range(1, last + 1)]


def position_schedules(updater: Updater, control: LearningRateControl, last: int, global_step: int, log: Log) -> None:
    """Brings the schedules to where they are after epoch `last`, though the optimizer has no state of it."""
    if last < 1 or not has_position(updater):
        return
    step = 0
    for epoch, count in enumerate(steps_of_epochs(control, last, global_step), 1):
        fast_forward(updater, epoch, range(step, step + count), control.measure(epoch - 1, updater.measure))
        step += count
    log.v2(f"note: the schedules of the optimizer continue as after {last} epochs and {step} steps")
