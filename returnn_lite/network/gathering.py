"""Parameters of which each process keeps a part: which steps of a program need which of them whole, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.joint import Joint
from returnn_lite.layers.core.node import Node, Slot
from returnn_lite.network.fusion.attention import Attention
from returnn_lite.network.inner import InnerLayers
from returnn_lite.network.recomputation import Segment, Step
from returnn_lite.network.substituted_params import containers
from returnn_lite.ops.recompute import Hooks

SHARE = 16  # a unit has this part of a network's parameters at most, or those of one layer


class Gathering:
    """Makes parameters whole while the steps run that read them; this one has nothing to do, since they always are."""

    @property
    def hooks(self) -> Hooks | None:
        """How autograd saves parameters that are whole now; None: as they are."""
        return None

    def running(self, training: bool, generator: torch.Generator) -> AbstractContextManager[None]:
        """While the network runs on a batch."""
        return nullcontext()

    def before(self, node: Node) -> None:
        """To be called before each step, with its node (the first one, where several are one step)."""

    def after_steps(self) -> None:
        """To be called after the last step."""

    def squares(self, params: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
        """Terms of the sum of the squares of all numbers in these."""
        return [param.square().sum() for param in params]

    def joined(self, objective: torch.Tensor) -> torch.Tensor:
        """The objective, such that its backward pass goes through all units in order, whatever it depends on."""
        return objective


@dataclass
class Unit:
    """Steps that run one right after the other, with the parameters that they read: `places`, where layers look for
    them, by name. `part`: the number of the part that was asked for; -1: none."""

    part: int
    nodes: list[Node] = field(default_factory=list)
    places: dict[str, list[Slot]] = field(default_factory=dict)


@dataclass
class _Stage:
    """Steps that one unit has: the `node` of the program that they belong to, and inside of a loop their own."""

    node: Node
    steps: Sequence[Step]
    loop: Layer | None = None


def units(
    steps: Sequence[Step | Segment],
    layers: Sequence[Layer],
    params: Mapping[str, torch.nn.Parameter],
    parts: Sequence[frozenset[Node]] = (),
) -> tuple[list[Unit], Unit]:
    """The units of a program's steps, in order; and one for the parameters that are read anywhere.

    Consecutive steps are a unit as long as they have at most the SHARE of all numbers, or are of one of the `parts`.
    What a loop runs before and after its ticks are steps like others. `layers`: all, those inside of loops too.
    """
    part_of = {node: number for number, part in enumerate(parts) for node in part}
    largest = sum(param.numel() for param in params.values()) // SHARE
    found: list[Unit] = [Unit(-1)]
    stages = [stage for step in steps for stage in _stages(step)]
    needs = _places(stages, layers, params)
    for stage, places in zip(stages, needs, strict=False):
        part, unit = part_of.get(stage.node, -1), found[-1]
        size = sum(params[name].numel() for name in unit.places.keys() | places.keys())
        if not unit.places:
            unit.part = part
        elif places and (part != unit.part or part < 0 and size > largest):
            unit = Unit(part)
            found.append(unit)
        unit.nodes += [node for node, _ in stage.steps]
        for name, slots in places.items():
            unit.places.setdefault(name, []).extend(slots)
    return found, Unit(-1, [], needs[-1])


def _stages(step: Step | Segment) -> Iterator[_Stage]:
    """What of a step may be in different units."""
    if isinstance(step, Segment):
        yield _Stage(step.steps[-1][0], step.steps)
        return
    layer = step[1].layer
    inner = layer.inner_steps() if isinstance(layer, InnerLayers) else []
    if not inner:
        yield _Stage(step[0], [step])
        return
    yield _Stage(step[0], [step, *inner[0]], layer)
    for steps in inner[1:]:
        yield _Stage(step[0], steps, layer)


def _places(
    stages: Sequence[_Stage], layers: Sequence[Layer], params: Mapping[str, torch.nn.Parameter]
) -> list[dict[str, list[Slot]]]:
    """Where the layers of each stage keep parameters, by name; and as the last entry where those do that run at any
    time, with all places of their parameters."""
    names = {id(param): name for name, param in params.items()}
    of_layer: dict[Layer, list[int]] = {}
    by_path: dict[str, int] = {}
    for number, stage in enumerate(stages):
        for _, call in stage.steps:
            for layer in computing(call.layer):
                of_layer.setdefault(layer, []).append(number)
                by_path.setdefault(layer.path, -1 if layer is stage.loop else number)
    in_loops = {layer for layer, numbers in of_layer.items() if any(stages[number].loop for number in numbers)}
    found: list[dict[str, list[Slot]]] = [{} for _ in range(len(stages) + 1)]
    for layer in dict.fromkeys((*layers, *of_layer)):
        numbers = of_layer.get(layer) or [_around(layer.path, by_path)]
        for container, key in _slots(layer):
            if (name := names.get(id(container[key]))) is None:
                continue
            for number in (-1,) if layer in in_loops and _is_start(layer, name) else numbers:
                found[number].setdefault(name, []).append((container, key))
    for name in found[-1]:
        found[-1][name] += [slot for stage in found[:-1] for slot in stage.pop(name, ())]
    return found


def _is_start(layer: Layer, name: str) -> bool:
    """Whether a parameter in a loop may be read for what layers begin with, which others ask for."""
    return layer.options.initial_output == "apply(0)" or name.rpartition("/")[2].startswith("init")


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
