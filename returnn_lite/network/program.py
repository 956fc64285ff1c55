"""`Program`: a net as it is run – frozen, in order, printable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import RunState
from returnn_lite.layers.core.node import Node, described, last_reads
from returnn_lite.network.building import compute
from returnn_lite.network.constraints import Term
from returnn_lite.network.fusion.fuse import Fusion, Values
from returnn_lite.network.gathering import Gathering
from returnn_lite.network.objective import LossNode, LossValue
from returnn_lite.network.recomputation import Segment
from returnn_lite.tensor import Tensor

if TYPE_CHECKING:  # the compiler takes a second to load
    from returnn_lite.network.compiling.segment import CompiledParts


@dataclass(frozen=True)
class Program:
    """What a network runs: `nodes` in this order, then the `losses`.

    `names`: the nodes of the root net by every name that was asked for; `owners`: the node of each parameter, by the
    parameter's name; `layers`: all layers, those inside of loops too; `data_keys`: the keys that a batch must hold.
    `constraints`: factors of the squares of parameters in the objective; `output_constraints`: terms for outputs.
    `fusion`: the nodes that one call computes; `recomputed`: parts that the backward pass computes again; `compiled`:
    the steps, of which functions of raw tensors compute as many as possible; `gathering`: makes parameters whole, where
    each process keeps a part.
    """

    nodes: tuple[Node, ...]
    names: Mapping[str, Node]
    owners: Mapping[str, Node]
    layers: tuple[Layer, ...]
    data_keys: frozenset[str]
    losses: tuple[LossNode, ...] = ()
    constraints: tuple[tuple[float, Sequence[torch.nn.Parameter]], ...] = ()
    output_constraints: tuple[tuple[Node, Term], ...] = ()
    fusion: Fusion = Fusion()  # noqa: RUF009 - frozen
    recomputed: tuple[Segment, ...] = ()
    compiled: CompiledParts | None = None
    gathering: Gathering = Gathering()  # noqa: RUF009 - this one does nothing

    @cached_property
    def steps(self) -> tuple[tuple[Node, Node], ...]:
        """(node, what computes its output) in the order in which they run."""
        return self.fusion.steps(self.nodes)

    def run(self, state: RunState, until: Node | None = None) -> dict[Node, Tensor]:
        """The outputs of all nodes for a batch, or of those before `until`; those that a fused call does without when
        somebody asks for them."""
        if self.compiled is not None and until is None and self.compiled.usable():
            state.values = [found := Values(self.fusion.absorbed | self.compiled.inner)]
            self.compiled.run(found)
            return found
        repeats = torch.is_grad_enabled() and bool(self.recomputed)
        values = Values(self.fusion.absorbed | self._not_kept if repeats else self.fusion.absorbed)
        state.values = [values]
        state.before = self.gathering.before
        done = {} if state.wanted is None or repeats else self._last_reads(state.wanted)
        for step in self.parts if repeats else self.steps:
            state.before(step.steps[0][0] if isinstance(step, Segment) else step[0])
            if isinstance(step, Segment):
                step.run(values, self.gathering.hooks)
            elif step[0] is until:
                break
            else:
                values[step[0]] = compute(step[1], values)
                for node in done.get(step[0], ()):
                    del values[node]
        self.gathering.after_steps()
        return values

    @cached_property
    def _known_last_reads(self) -> dict[frozenset[str], Mapping[Node, Sequence[Node]]]:
        return {}

    def _last_reads(self, wanted: frozenset[str]) -> Mapping[Node, Sequence[Node]]:
        """For each node the nodes that nothing reads after it: neither losses and constraints nor who wants these."""
        if wanted not in self._known_last_reads:
            kept = {*self.evaluated, *map(self.names.get, wanted)}
            self._known_last_reads[wanted] = last_reads(((node, call.inputs) for node, call in self.steps), kept)
        return self._known_last_reads[wanted]

    @cached_property
    def looks_around(self) -> bool:
        """Whether code of the config may read layers that it does not name as sources."""
        return any(layer.differs_by_step or layer.context.beams for layer in self.layers)

    @cached_property
    def _not_kept(self) -> frozenset[Node]:
        """The nodes inside of parts that are computed again."""
        return frozenset().union(*(part.inner for part in self.recomputed))

    @cached_property
    def parts(self) -> tuple[tuple[Node, Node] | Segment, ...]:
        """The steps, those of a part that is computed again as one."""
        first = {part.steps[0][0]: part for part in self.recomputed}
        inside = {node for part in self.recomputed for node, _ in part.steps}
        parts = ((step, first.get(step[0])) for step in self.steps)
        return tuple(part or step for step, part in parts if part is not None or step[0] not in inside)

    @cached_property
    def evaluated(self) -> tuple[Node, ...]:
        """The nodes whose outputs losses and constraints read."""
        found: list[Node | None] = [node for node, _ in self.output_constraints]
        for loss in self.losses:
            found += [loss.node, loss.target, loss.inverse_norm_node, *loss.layer_nodes.values()]
        return tuple(dict.fromkeys(node for node in found if node is not None))

    def evaluate(
        self, values: dict[Node, Tensor], *, training: bool, constrained: bool
    ) -> tuple[dict[str, LossValue], torch.Tensor | None]:
        """The losses by name, and the objective: scaled sums of losses plus the constraints; None without any term.

        `constrained`: the squares of parameters count.
        """
        losses, terms = {}, []
        for node in self.losses:
            value = losses[node.name] = node.compute(values, training)
            if value.objective is not None:
                terms.append(value.objective)
        if constrained:
            for factor, params in self.constraints:
                terms += [factor * squares for squares in self.gathering.squares(params)]
        terms += [term(values[node]) for node, term in self.output_constraints]
        if not terms:
            return losses, None
        total = terms[0] if len(terms) == 1 else torch.stack([t.reshape(()) for t in terms]).sum()
        return losses, self.gathering.joined(total)

    def __str__(self) -> str:
        lines: list[str] = []
        for node in self.nodes:
            lines += [described(node), *(f"  {line}" for line in node.layer.inside().splitlines())]
        lines += [f"fused {line}" for line in self.fusion.lines]
        lines += [f"computed again in the backward pass: {part.name}, {len(part.steps)}" for part in self.recomputed]
        return "\n".join([*lines, *(f"loss {loss.name}: {loss.loss.loss_name}" for loss in self.losses)])
