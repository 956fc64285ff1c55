"""Parameters of which each process keeps a part: which steps of a program need which of them whole, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.joint import Joint
from returnn_lite.layers.core.node import Node, Slot
from returnn_lite.network.fusion.attention import Attention
from returnn_lite.network.recomputation import Segment, Step
from returnn_lite.network.substituted_params import containers
from returnn_lite.ops.recompute import Hooks

SHARE = 16  # a unit has this part of a network's parameters at most, or those of one layer


class Gathering(ABC):
    """Makes parameters whole while the steps run that read them."""

    @abstractmethod
    def running(self, training: bool, generator: torch.Generator) -> AbstractContextManager[None]:
        """While the network runs on a batch."""

    @property
    @abstractmethod
    def hooks(self) -> Hooks | None:
        """How autograd saves parameters that are whole now; None: as they are."""

    @abstractmethod
    def before(self, node: Node) -> None:
        """To be called before each step, with its node (the first one, where several are one step)."""

    @abstractmethod
    def after_steps(self) -> None:
        """To be called after the last step."""

    @abstractmethod
    def squares(self, params: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        """The sum of the squares of all numbers in these."""

    @abstractmethod
    def joined(self, objective: torch.Tensor) -> torch.Tensor:
        """The objective, such that its backward pass goes through all units in order, whatever it depends on."""


@dataclass
class Unit:
    """Steps that run one right after the other, with the parameters that they read: `places`, where layers look for
    them, by name. `part`: the number of the part that was asked for; -1: none."""

    part: int
    nodes: list[Node] = field(default_factory=list)
    places: dict[str, list[Slot]] = field(default_factory=dict)


def units(
    steps: Sequence[Step | Segment],
    layers: Sequence[Layer],
    params: Mapping[str, torch.nn.Parameter],
    parts: Sequence[frozenset[Node]] = (),
) -> tuple[list[Unit], Unit]:
    """The units of a program's steps, in order; and one for the parameters that no step is known to read.

    Consecutive steps are a unit as long as they have at most the SHARE of all numbers, or are of one of the `parts`.
    `layers`: all, those inside of loops too, which belong to the step of the loop.
    """
    part_of = {node: number for number, part in enumerate(parts) for node in part}
    largest = sum(param.numel() for param in params.values()) // SHARE
    found: list[Unit] = [Unit(-1)]
    needs = _places(steps, layers, params)
    for number, step in enumerate(steps):
        nodes = [node for node, _ in step.steps] if isinstance(step, Segment) else [step[0]]
        places, part = needs[number], part_of.get(nodes[-1], -1)
        unit = found[-1]
        size = sum(params[name].numel() for name in unit.places.keys() | places.keys())
        if not unit.places:
            unit.part = part
        elif places and (part != unit.part or part < 0 and size > largest):
            unit = Unit(part)
            found.append(unit)
        unit.nodes += nodes
        for name, slots in places.items():
            unit.places.setdefault(name, []).extend(slots)
    known = {name for unit in found for name in unit.places}
    left = Unit(-1, [], {name: slots for name, slots in needs[-1].items() if name not in known})
    return found, left


def _places(
    steps: Sequence[Step | Segment], layers: Sequence[Layer], params: Mapping[str, torch.nn.Parameter]
) -> list[dict[str, list[Slot]]]:
    """Where the layers of each step keep parameters, by name; and as the last entry where all others do."""
    names = {id(param): name for name, param in params.items()}
    of_layer: dict[Layer, list[int]] = {}
    by_path: dict[str, int] = {}
    for number, step in enumerate(steps):
        for _, call in step.steps if isinstance(step, Segment) else (step,):
            for layer in computing(call.layer):
                of_layer.setdefault(layer, []).append(number)
                by_path.setdefault(layer.path, number)
    found: list[dict[str, list[Slot]]] = [{} for _ in range(len(steps) + 1)]
    for layer in dict.fromkeys((*layers, *of_layer)):
        numbers = of_layer.get(layer) or [_around(layer.path, by_path)]
        for container, key in _slots(layer):
            if (name := names.get(id(container[key]))) is None:
                continue
            for number in numbers:
                found[number].setdefault(name, []).append((container, key))
    return found


def _around(path: str, by_path: Mapping[str, int]) -> int:
    """The entry of the innermost layer around this path; -1: there is none."""
    while "[" in path:
        path = path.rpartition("[")[0]
        if path in by_path:
            return by_path[path]
    return -1


def _slots(layer: Layer) -> Iterator[Slot]:
    """Where a layer, and what is told of it, may keep parameters."""
    scope = layer.scope
    for container in (*containers(layer), *((scope.owned, scope.used) if scope is not None else ())):
        for key in container:
            yield container, key


def computing(layer: Layer) -> Iterator[Layer]:
    """The layer, and those whose computation it does."""
    yield layer
    if isinstance(layer, Joint):
        yield from layer.members
    if isinstance(layer, Attention):
        yield from (node.layer for node in layer.chain.nodes)
