"""Records what layers compute, as a function of raw tensors that is valid for any sizes of batch and time axes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensor
from torch.autograd.function import BackwardCFunction
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node, Slot
from returnn_lite.network.building import compute
from returnn_lite.network.compiling.ports import Inputs, Refused, leaves, lengths_of, rebuilt
from returnn_lite.network.compiling.sizes import Numbers, Sizes
from returnn_lite.network.compiling.watching import Draw, Watch, hiding_step
from returnn_lite.network.gathering import computing
from returnn_lite.network.substituted_params import containers, substituted
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.lengths import Lengths

Step: TypeAlias = tuple[Node, Node]  # (node, what computes its output)
Place: TypeAlias = tuple[bool, int]  # a raw tensor: whether it is given, and its number among those given or computed
WAITING = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


class Failed(Exception):
    """Why layers are not recorded; `step`: the number of the first one, None: not known."""

    def __init__(self, reason: str, step: int | None) -> None:
        super().__init__(reason)
        self.reason, self.step = reason, step


@dataclass(frozen=True)
class Record:
    """What layers compute. `graph`: of raw inputs, parameters and the numbers of `draws`; `valid`: for which sizes.

    `shapes`: sizes of the draws, `largest`: the largest of new lengths, as functions of the sizes. `outputs`: Tensors
    like the results; `places`: where their raw tensors are, and the values of the `lengths` (a number: one of the
    input's).
    """

    graph: GraphModule
    draws: tuple[Draw, ...]
    valid: Numbers
    shapes: tuple[Numbers, ...]
    largest: Numbers
    outputs: tuple[Tensor, ...]
    places: tuple[Place, ...]
    lengths: dict[int, int | tuple[Place, int]]  # by the id of the lengths of `outputs`

    def results(self, given: Sequence[torch.Tensor], made: Sequence[torch.Tensor], inputs: Inputs) -> list[Tensor]:
        """The outputs, of raw tensors."""

        def at(place: Place) -> torch.Tensor:
            return given[place[1]] if place[0] else made[place[1]]

        largest: Any = self.largest(inputs.sizes)  # Any: a tuple of ints
        known: dict[int, Lengths] = {}

        def lengths(template: Lengths) -> Lengths:
            entry = self.lengths[id(template)]
            if isinstance(entry, int):
                return inputs.lengths[entry]
            if id(template) not in known:
                known[id(template)] = Lengths(at(entry[0]), largest[entry[1]], template.dims)
            return known[id(template)]

        raw = (at(place) for place in self.places)
        return [rebuilt(x, raw, lengths) for x in self.outputs]


class Recorder:
    """Records `steps`, which read the outputs of `reads`, for inputs like these; `outputs`: what others read."""

    def __init__(self, steps: Sequence[Step], reads: Sequence[Node], outputs: Sequence[Node]) -> None:
        self.steps, self.reads, self.outputs = steps, reads, outputs
        self.slots = [slot for _, call in steps for slot in tensor_slots(call.layer)]

    def record(self, values: Sequence[Tensor], inputs: Inputs) -> Record:
        """What the steps compute of such values. Raises Failed."""
        run = _Run(self, values, inputs)
        try:
            return run.record()
        except Exception as exc:
            raise Failed(_reason(exc), run.step) from exc
        finally:
            self._forget()

    def _forget(self) -> None:
        """Drops what layers have kept of tensors without numbers."""
        for _, call in self.steps:
            for container in (c for layer in computing(call.layer) for c in containers(layer)):
                for key in [k for k, v in container.items() if isinstance(v, FakeTensor)]:
                    del container[key]


class _Run:
    """One run of a recorder."""

    def __init__(self, of: Recorder, values: Sequence[Tensor], inputs: Inputs) -> None:
        self.of, self.values, self.inputs = of, values, inputs
        self.context = of.steps[0][1].layer.context
        self.sizes = Sizes(inputs.sizes)
        self.watch = Watch(self.context.generator)
        self.step: int | None = None
        self.checked: set[object] = set()  # nodes of the graph
        self.outputs: list[Tensor] = []
        self.given_lengths: list[Lengths] = []
        self.places: list[Place] = []
        self.lengths: dict[int, int | tuple[Place, int]] = {}
        self.largest: list[int | torch.SymInt] = []

    def record(self) -> Record:
        """The record."""
        given = [self.sizes.like(x, s) for x, s in zip(self.inputs.tensors, self.inputs.shapes, strict=True)]
        given += [self.sizes.like(container[key]) for container, key in self.of.slots]
        with self.sizes.mode, enable_python_dispatcher(), _silent():
            graph = make_fx(self._computed)(*given)
        _put_in(graph, len(self.watch.draws))
        shapes = tuple(self.sizes.numbers(draw.shape) for draw in self.watch.draws)
        return Record(
            graph, tuple(self.watch.draws), self.sizes.conditions(), shapes, self.sizes.numbers(self.largest),
            tuple(self.outputs), tuple(self.places), self.lengths,
        )  # fmt: skip

    def _computed(self, *given: torch.Tensor) -> list[torch.Tensor]:
        """What is recorded: the raw results for raw inputs and parameters."""
        known = self._inputs(given)
        params = given[len(self.inputs.tensors) :]
        seen: set[object] = set()
        with (
            substituted([([slot], value) for slot, value in zip(self.of.slots, params, strict=True)]),
            hiding_step(self.context),
            self.watch,
        ):
            for number, (node, call) in enumerate(self.of.steps):
                self.step = number
                known[node] = made = compute(call, known)
                self._check(made, seen)
        self.step = None
        return self._results([known[node] for node in self.of.outputs], given)

    def _check(self, made: Tensor, seen: set[object]) -> None:
        """Raises Refused if the last step did what a record does not repeat."""
        if made.beam is not None:
            raise Refused("makes hypotheses")
        if self.sizes.fixed():
            raise Refused("computes for one size of an axis alone")
        for raw, _ in leaves(made):
            _check_gradient(raw, seen)
        for node in reversed(get_proxy_mode().tracer.graph.nodes):  # type: ignore[union-attr]
            if node in self.checked:
                break
            self.checked.add(node)
            _check_call(node)

    def _inputs(self, given: Sequence[torch.Tensor]) -> dict[Node, Tensor]:
        inputs = self.inputs
        values = given[len(inputs.tensors) - len(inputs.lengths) :]
        made = {
            id(real): Lengths(raw, self.sizes.at(place), real.dims)  # type: ignore[arg-type]
            for real, raw, place in zip(inputs.lengths, values, inputs.largest, strict=False)
        }
        self.given_lengths = list(made.values())
        raw = iter(given)
        return {
            node: rebuilt(x, raw, lambda n: made[id(n)]) for node, x in zip(self.of.reads, self.values, strict=True)
        }

    def _results(self, outputs: list[Tensor], given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The raw tensors of the outputs that are not given, each once."""
        self.outputs = outputs
        results: list[torch.Tensor] = []
        places: dict[int, Place] = {}
        for number, x in enumerate(given):
            places.setdefault(id(x), (True, number))

        def place(x: torch.Tensor) -> Place:
            if id(x) not in places:
                places[id(x)] = (False, len(results))
                results.append(x)
            return places[id(x)]

        known = {id(n): i for i, n in enumerate(self.given_lengths)}
        for x in outputs:
            self.places += [place(raw) for raw, _ in leaves(x)]
            for _, lengths in lengths_of(x):
                if id(lengths) in known:
                    self.lengths[id(lengths)] = known[id(lengths)]
                elif id(lengths) not in self.lengths:
                    self.lengths[id(lengths)] = place(lengths.values), len(self.largest)
                    self.largest.append(lengths.max)
        return results


@contextmanager
def _silent() -> Iterator[None]:
    """What torch cannot compute without numbers is no error here."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


# --- what layers hold -------------------------------------------------------------------------------------------------


def tensor_slots(layer: Layer) -> list[Slot]:
    """The places where a layer keeps tensors: parameters, statistics, constants."""
    found = ((c, key, v) for one in computing(layer) for c in containers(one) for key, v in c.items())
    return [(container, key) for container, key, value in found if isinstance(value, torch.Tensor)]


# --- what cannot be recorded ------------------------------------------------------------------------------------------


def _check_gradient(x: torch.Tensor, seen: set[object]) -> None:
    """Raises Refused if a gradient of its own was defined on the way to `x`, which a record does not hold."""
    waiting = [x.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if isinstance(step, BackwardCFunction):
            raise Refused("defines a gradient of its own")
        waiting += [before for before, _ in step.next_functions]


def _put_in(graph: GraphModule, count: int) -> None:
    """Makes the places of random numbers inputs, behind the others."""
    nodes = graph.graph
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    inputs = []
    for number in range(count):
        with nodes.inserting_after(last):
            last = nodes.placeholder(f"drawn_{number}")
        inputs.append(last)
    for node in list(nodes.nodes):
        if node.target is torch.ops.returnn_lite.drawn.default:
            node.replace_all_uses_with(inputs[node.args[1]])
            nodes.erase_node(node)
    graph.recompile()


def _check_call(node: torch.fx.Node) -> None:
    """Raises Refused for a call that is another thing at each run."""
    if _draws(node):
        raise Refused("draws random numbers inside of a call")
    if node.op == "get_attr" and any(user.target not in LIFTING for user in node.users):
        raise Refused("computes with a tensor that is neither an input nor a parameter")


def _draws(node: torch.fx.Node) -> bool:
    """Whether a call draws random numbers; attention without dropout does not."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    names = [argument.name for argument in target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return "dropout_p" not in names or given.get("dropout_p", 0.0) not in (0, 0.0)


LIFTING = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


def _reason(exc: BaseException) -> str:
    """Why, in a few words."""
    while exc.__cause__ is not None and not isinstance(exc, Refused):
        exc = exc.__cause__
    if isinstance(exc, Refused):
        return str(exc)
    if isinstance(exc, WAITING):
        return "depends on the numbers in a tensor"
    return f"{type(exc).__name__}: {(str(exc).strip() or 'no message').splitlines()[0]}"
