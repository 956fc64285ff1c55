"""Where the schedules of an updater are, and bringing them forward without training."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.optim.updater import Updater


def has_position(updater: Updater) -> bool:
    """Whether anything depends on how many epochs or updates there were: `lr_scheduler`, schedules of optimizers."""
    return updater.scheduler is not None or any(optimizer.position() for optimizer in updater.optimizers.values())


def fast_forward(updater: Updater, epoch: int, steps: Sequence[int], score: float | None) -> None:
    """Counts an epoch with these global steps; `score`: what the one before reached."""
    updater.start_epoch(epoch, score)
    for count, step in enumerate(steps, 1):
        updater.skip_step(step, count / len(steps))
