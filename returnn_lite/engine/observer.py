"""Who looks on while a training runs, and adds to what the learning-rate file says of each epoch."""

from collections.abc import Mapping

from returnn_lite.engine.models.model import Model
from returnn_lite.engine.step import StepResult
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.updater import Updater


class Observer:
    """Looks on; changes nothing. Sub-classes override what they want to see."""

    def epoch_start(self, net: Model, updater: Updater) -> None:
        """Before the first step of an epoch."""

    def step(self, result: StepResult) -> None:
        """A step's output and scores, before its update."""

    def gradients(self, gradients: Gradients) -> None:
        """A step's gradients as the losses give them (of all processes), by parameter."""

    def epoch_end(self) -> Mapping[str, object]:
        """After the last step: entries for the epoch's record in the learning-rate file."""
        return {}
