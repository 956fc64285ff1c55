"""The training step of a layer net without its update: as a whole, or in parts around the losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from returnn_lite.layers.core.node import Node
from returnn_lite.network import Network
from returnn_lite.network.objective import LossValue
from returnn_lite.ops.precision import full_precision, uncached
from returnn_lite.optim.gradients import gradients
from returnn_lite.tensor import Deferred, Tensor

Tensors = dict[str, torch.Tensor]
Probing: TypeAlias = Callable[[], AbstractContextManager[object]]


@dataclass
class StepValues:
    """What a step gives: its losses, objective, and the gradients of the parameters."""

    losses: dict[str, LossValue]
    objective: torch.Tensor
    gradients: Tensors


class NetStep:
    """The step of a network as a whole."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.trained = {name: param for name, param in net.params.items() if param.requires_grad}

    def values(self, data: Tensors, lengths: Tensors) -> StepValues:
        """Losses, objective and gradients of a batch."""
        with uncached(self.net.device):
            out = self.net(data, lengths)
        out.forget_layers()
        with full_precision(self.net.device):
            found = gradients(out.objective, self.trained)
        return StepValues(detached(out.losses), out.objective.detach(), found)

    def tried(self, data: Tensors, lengths: Tensors, probing: Probing) -> None:
        """Runs what is to be recorded while `probing`, which raises an error where it cannot."""
        with probing():
            self.values(data, lengths)


@dataclass
class Outputs:
    """What losses read, by node, and the tensors among it into which gradients flow."""

    values: dict[Node, Tensor]
    tensors: list[torch.Tensor]


class NetStepInParts(NetStep):
    """The step in three parts: layers; losses, back to the outputs of layers; from there back to the parameters."""

    def outputs(self, data: Tensors, lengths: Tensors) -> Outputs:
        """The first part."""
        with uncached(self.net.device):
            values = self.net.outputs(data, lengths)
        read = {node: values[node] for node in self.net.program.evaluated}
        found = [x for value in read.values() for x in _sources(value) if x.requires_grad]
        return Outputs(read, list({id(x): x for x in found}.values()))

    def losses(self, outputs: Outputs, rows: int | None = None) -> tuple[StepValues, list[torch.Tensor | None]]:
        """The second part: what the step gives, with the gradients of parameters in the objective itself; and those of
        the tensors. `rows`: only so many sequences count."""
        leaves = [x.detach().requires_grad_() for x in outputs.tensors]
        of = {id(x): leaf for x, leaf in zip(outputs.tensors, leaves, strict=True)}
        values = {node: _on_leaves(x, of) for node, x in outputs.values.items()}
        if rows is not None:
            values = {node: _first_rows(x, rows) for node, x in values.items()}
        losses, objective = self.net.evaluate(values)
        if objective is None or not objective.requires_grad:
            zero = torch.zeros((), device=self.net.device)
            return StepValues(detached(losses), zero if objective is None else objective, {}), [None] * len(leaves)
        wanted = [*leaves, *self.trained.values()]
        with full_precision(self.net.device):
            found = torch.autograd.grad(objective, wanted, allow_unused=True)
        own = zip(self.trained, found[len(leaves) :], strict=True)
        given = {name: grad for name, grad in own if grad is not None}
        return StepValues(detached(losses), objective.detach(), given), list(found[: len(leaves)])

    def gradients(self, tensors: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> Tensors:
        """The third part, from the gradients of tensors."""
        if not tensors:
            return {}
        with full_precision(self.net.device):
            found = torch.autograd.grad(tensors, list(self.trained.values()), given, allow_unused=True)
        return {name: grad for name, grad in zip(self.trained, found, strict=True) if grad is not None}

    def values(self, data: Tensors, lengths: Tensors, rows: int | None = None) -> StepValues:
        """All three."""
        outputs = self.outputs(data, lengths)
        made, given = self.losses(outputs, rows)
        used = [(x, grad) for x, grad in zip(outputs.tensors, given, strict=True) if grad is not None]
        made.gradients = added(self.gradients([x for x, _ in used], [grad for _, grad in used]), made.gradients)
        return made

    def tried(self, data: Tensors, lengths: Tensors, probing: Probing) -> None:
        """The losses may do as they like."""
        with probing():
            outputs = self.outputs(data, lengths)
        _, given = self.losses(outputs)
        with probing():
            used = [(x, grad) for x, grad in zip(outputs.tensors, given, strict=True) if grad is not None]
            self.gradients([x for x, _ in used], [grad for _, grad in used])


def moved_to(outputs: Outputs, tensors: Sequence[torch.Tensor]) -> Outputs:
    """The outputs with these tensors, which are no results of anything, in the place of theirs."""
    of = {id(x): y for x, y in zip(outputs.tensors, tensors, strict=True)}
    values = {node: _on_leaves(x, of) for node, x in outputs.values.items()}
    return Outputs(values, list(tensors))


def _first_rows(x: Tensor, rows: int) -> Tensor:
    """The first sequences of an output."""
    at = x.spec.batch or 0
    made = x.each(lambda data: data.narrow(at, 0, rows))
    if x.state is not None:
        made.state = {key: value.narrow(0, 0, rows) for key, value in x.state.items()}
    if x.sequence_loss is not None:
        made.sequence_loss = x.sequence_loss.narrow(0, 0, rows)
    made.lengths = {dim: n.first(rows) for dim, n in x.lengths.items()}
    return made


def added(gradients: Tensors, more: Tensors) -> Tensors:
    """The sums of gradients by parameter."""
    return gradients | {name: grad + gradients[name] if name in gradients else grad for name, grad in more.items()}


def detached(losses: dict[str, LossValue]) -> dict[str, LossValue]:
    """The losses, of which no gradient is wanted any more."""

    def bare(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x.detach()

    return {name: replace(loss, sum=bare(loss.sum), error=bare(loss.error)) for name, loss in losses.items()}


def _sources(x: Tensor) -> list[torch.Tensor]:
    """The tensors that losses may read of an output."""
    more = [*(x.state or {}).values(), *([x.sequence_loss] if x.sequence_loss is not None else [])]
    data = [] if isinstance(x, Deferred) else [x.data]
    return [*data, *([x.pre.data] if x.pre is not None else []), *more]


def _on_leaves(x: Tensor, leaves: dict[int, torch.Tensor]) -> Tensor:
    """An output whose tensors are replaced by leaves; deferred ones are computed anew."""

    def leaf(tensor: torch.Tensor) -> torch.Tensor:
        return leaves.get(id(tensor), tensor)

    made = x.of(leaf(x.pre.data)) if isinstance(x, Deferred) else x.each(leaf)
    made.parts = None
    if x.state is not None:
        made.state = {key: leaf(value) for key, value in x.state.items()}
    if x.sequence_loss is not None:
        made.sequence_loss = leaf(x.sequence_loss)
    return made
