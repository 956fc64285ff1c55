"""How several processes train one network: what they average, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from returnn_lite.datasets import Batch
from returnn_lite.engine.distributed.world import Tensors, World
from returnn_lite.engine.interrupt import StopRequest
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.step import Forward
from returnn_lite.optim.gradients import Gradients
from returnn_lite.optim.state import SavedState, State


class Parallel:
    """One process, or what is the same in all.

    `by_backward`: gradients come from a backward pass over all parameters, and not from those of the optimizer alone.
    `asks_every`: steps between the questions whether all processes have data. `splits_parameters`: each process has a
    part of every parameter, so all must run the network equally often.
    """

    by_backward = False
    asks_every = 1
    splits_parameters = False

    def __init__(self, world: World) -> None:
        self.world = world

    def training(self, forward: Forward) -> Forward:
        """What runs the network in training, where `forward` would in one process."""
        return forward

    def together(self, batches: Iterable[Batch], stop: StopRequest) -> Iterator[Batch]:
        """The batches, as long as each process has one."""
        return self.world.together(batches, stop, self.asks_every)

    def combine(self, gradients: Gradients, params: Mapping[str, torch.Tensor]) -> Gradients:
        """From the gradients of this process to those of the step."""
        return gradients

    def adopt(self, net: Model) -> None:
        """Splits the parameters of a network, before an optimizer is made for them."""

    def agree(self, params: Tensors) -> None:
        """Before an epoch: all parameters are those of the first process."""
        self.world.copy_first(params)

    def after_step(self, step: int, params: Tensors) -> None:
        """After the update of a step (from 0) of the epoch."""

    def end_epoch(self, params: Tensors) -> None:
        """After the last step of an epoch."""

    def whole(self, values: Tensors) -> dict[str, torch.Tensor]:
        """Parameters in one piece, for files."""
        return dict(values)

    def whole_state(self, state: State) -> State:
        """The same for the tensors in an optimizer's state."""
        return state

    def split_state(self, state: SavedState, params: Tensors) -> SavedState:
        """From a state that was read to that of this process, which has the parameters `params`."""
        return state


class MeanGradients(Parallel):
    """The gradients of each step are averaged after they were computed; a missing one counts as 0."""

    def combine(self, gradients: Gradients, params: Mapping[str, torch.Tensor]) -> Gradients:
        """Their mean over the processes."""
        return self.world.mean(gradients, params)[0]


class MeanParameters(Parallel):
    """Each process trains for itself; after every `steps` steps, and at the end of an epoch, parameters are averaged.

    Zhang, Choromanska & LeCun 2015, "Deep learning with elastic averaging SGD", have this as one of their baselines;
    local SGD in Stich 2019, "Local SGD converges fast and communicates little".
    """

    def __init__(self, world: World, steps: int, device: torch.device | None) -> None:
        super().__init__(world)
        self.asks_every, self.device = steps, device

    def after_step(self, step: int, params: Tensors) -> None:
        """Averages after each `steps`-th step."""
        if (step + 1) % self.asks_every == 0:
            self.end_epoch(params)

    def end_epoch(self, params: Tensors) -> None:
        """The checkpoint holds the mean of what all have trained."""
        self.world.average((param for _, param in sorted(params.items()) if param.requires_grad), self.device)
