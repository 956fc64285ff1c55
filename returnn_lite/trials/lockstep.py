"""Trainings side by side, with one pass of the network for all of them at each step.

Everything but the pass is each training's own: its batches, updates, scores. Their networks are the same but for the
values of the parameters, so torch.func runs one of them on all values at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch.func import functional_call, vmap

from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.step import by_itself, to_device
from returnn_lite.network.objective import LossValue
from returnn_lite.trials.trial import Trial
from returnn_lite.trials.turns import Turn, run_in_turns

T = TypeVar("T")
RTOL, ATOL = 1e-3, 1e-5  # float32 sums in another order


@dataclass
class Pass:
    """What a training asks for: its network's output for a batch. `index`: which training it is."""

    index: int
    net: Model
    data: dict[str, Any]
    lengths: dict[str, torch.Tensor]
    tags: list[str]
    with_gradients: bool

    def key(self) -> Hashable:
        """Equal for passes that can be made together."""
        shapes = tuple((key, value.shape, value.dtype) for key, value in self.data.items())
        lengths = tuple((key, tuple(value.tolist())) for key, value in self.lengths.items())
        return self.with_gradients, self.net.training, shapes, lengths

    def alone(self) -> ModelOutput:
        """By the network itself."""
        return by_itself(self.net, self.data, self.lengths, self.tags)


class LockStep:
    """Runs jobs of several trials whose networks have the same layers. `why_not`: why passes are not made together."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = list(trials)
        self.stacked: dict[str, torch.Tensor] = {}  # parameter -> its values in all trials, (trials, …)
        self.turns: dict[int, Turn] = {}
        self.adopted: dict[int, Model] = {}  # trial -> its network
        self.why_not = "" if len(self.trials) > 1 else "only one training runs"
        for index, trial in enumerate(self.trials):
            trial.forward = functools.partial(self.forward, index)
            self.adopt(index, trial.net)

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """A job for each of the first trials, side by side; their results."""

        def job_of(index: int, job: Callable[[], T]) -> Callable[[Turn], T]:
            def in_turn(turn: Turn) -> T:
                self.turns[index] = turn
                return job()

            return in_turn

        try:
            return run_in_turns([job_of(index, job) for index, job in enumerate(jobs)], self.answer)
        finally:
            self.turns = {}

    # --- the passes ---------------------------------------------------------------------------------------------------

    def adopt(self, index: int, net: Model) -> None:
        """Puts the parameters of a trial's network beside those of the others, if it is a new one."""
        if self.adopted.get(index) is net:
            return
        self.adopted[index] = net
        for name, param in net.params.items():
            if name not in self.stacked:
                self.stacked[name] = param.detach().new_zeros((len(self.trials), *param.shape))
            row = self.stacked[name][index]
            row.copy_(param.detach())
            param.data = row

    def forward(
        self, index: int, net: Model, batch: dict[str, Any], lengths: dict[str, torch.Tensor], tags: list[str]
    ) -> ModelOutput:
        """Runs the network of a trial: with those of the others, if they wait for it."""
        self.adopt(index, net)
        wanted = Pass(index, net, batch, lengths, tags, torch.is_grad_enabled())
        if self.why_not or index not in self.turns:
            return wanted.alone()
        reply: ModelOutput | None = self.turns[index].ask(wanted)
        return wanted.alone() if reply is None else reply

    def answer(self, passes: Sequence[Pass]) -> list[ModelOutput | None]:
        """The outputs of all passes that go together with another one; the others are left to their networks."""
        groups: dict[Hashable, list[int]] = {}
        for place, wanted in enumerate(passes):
            groups.setdefault(wanted.key(), []).append(place)
        replies: list[ModelOutput | None] = [None] * len(passes)
        for places in groups.values():
            if len(places) > 1 and not self.why_not:
                for place, output in zip(places, self.together([passes[i] for i in places]), strict=True):
                    replies[place] = output
        return replies

    def together(self, passes: Sequence[Pass]) -> list[ModelOutput]:
        """One pass for all: forward, and backward from the sum of their objectives, which shares no term."""
        net, wants = passes[0].net, passes[0].with_gradients
        index = [wanted.index for wanted in passes]
        whole = index == list(range(len(self.trials)))
        leaves = {name: rows if whole else rows[index] for name, rows in self.stacked.items()}
        leaves = {name: value.detach().requires_grad_(wants) for name, value in leaves.items()}
        batch = {key: torch.stack([wanted.data[key] for wanted in passes]) for key in passes[0].data}
        module: Any = net  # of layers; the last test of `check` fails for others
        places = module.layer_modules.named_parameters(prefix="layer_modules", remove_duplicate=False)
        names = {id(param): name for name, param in net.params.items()}
        inner = {place: names[id(param)] for place, param in places if id(param) in names}
        made: list[Any] = []

        def one(values: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> Any:
            inputs = (batch, passes[0].lengths, passes[0].tags)
            out = functional_call(module, {p: values[name] for p, name in inner.items()}, inputs, tie_weights=False)
            out.forget_layers()
            made.append(out)
            return out.objective, {name: numbers_of(loss) for name, loss in out.losses.items()}

        with torch.set_grad_enabled(wants):
            objective, numbers = vmap(one)(leaves, batch)
            found = torch.autograd.grad(objective.sum(), list(leaves.values()), allow_unused=True) if wants else ()
        grads = {name: grad.unbind() for name, grad in zip(leaves, found, strict=wants) if grad is not None}
        return [
            replace(
                made[0],
                losses={name: loss_of(made[0].losses[name], numbers[name], i) for name in numbers},
                objective=objective[i].detach(),
                gradients={name: rows[i] for name, rows in grads.items()} if wants else None,
            )
            for i in range(len(passes))
        ]

    # --- whether it works ---------------------------------------------------------------------------------------------

    def check(self) -> str:
        """Compares a pass of two trainings together with each by itself; '' or why it cannot be done."""
        self.why_not = self.why_not or self._obstacle() or self._difference()
        return self.why_not

    def _obstacle(self) -> str:
        trial = self.trials[0]
        if not all(param.requires_grad for param in trial.net.params.values()):
            return "the network has values that do not come from gradients"
        if trial.updater.closure is not None or any(g.options.maximize_grad_norm for g in trial.updater.groups):
            return "the optimizer needs more than the gradients"
        return ""

    def _difference(self) -> str:
        passes = [first_pass(index, trial) for index, trial in enumerate(self.trials[:2])]
        if passes[0].key() != passes[1].key():
            return "the batches have different shapes"
        try:
            together = self.together(passes)
            for wanted in passes:  # as in another epoch: a network that looks at it cannot stand for one in this epoch
                wanted.net.epoch, wanted.net.global_step = 7, 777
            alone = [wanted.alone() for wanted in passes]
        except Exception as error:  # of any kind: layers are not written for this
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        for wanted, one, other in zip(passes, together, alone, strict=True):
            grads = torch.autograd.grad(other.objective, list(wanted.net.params.values()), allow_unused=True)
            pairs = [(one.objective, other.objective.detach())]
            known = one.gradients or {}
            pairs += [(known[n], g) for n, g in zip(wanted.net.params, grads, strict=True) if g is not None]
            if not all(torch.allclose(a, b.to_dense() if b.is_sparse else b, rtol=RTOL, atol=ATOL) for a, b in pairs):
                return "the numbers are not the same"
        return ""


def first_pass(index: int, trial: Trial) -> Pass:
    """The pass of a trial's first training batch."""
    net = trial.net.train()
    trial.data.start_epoch(1)
    batch = next(iter(trial.data.training_batches(net, 1)))
    moved = {key: to_device(value, trial.trainer.device) for key, value in batch.data.items()}
    lengths = {key: to_device(value, trial.trainer.device) for key, value in batch.lengths.items()}
    return Pass(index, net, moved, lengths, batch.tags, True)


def numbers_of(loss: LossValue) -> dict[str, torch.Tensor]:
    """The tensors of a loss."""
    found = {"sum": loss.sum, "error": loss.error, "inv_norm": loss.inv_norm}
    return {key: value for key, value in found.items() if value is not None}


def loss_of(like: LossValue, numbers: dict[str, torch.Tensor], index: int) -> LossValue:
    """The loss of one training."""
    own = {key: value[index].detach() for key, value in numbers.items()}
    return LossValue(own.get("sum"), own.get("error"), own["inv_norm"], like.scale, like.normalized)
