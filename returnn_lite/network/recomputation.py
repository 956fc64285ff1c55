"""Parts of a program that the backward pass computes again: `grad_checkpoint`."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node, full_name
from returnn_lite.network.building import compute
from returnn_lite.network.subnet import Subnetwork
from returnn_lite.ops.recompute import Hooks, recomputed
from returnn_lite.tensor import Tensor

OPTION = "grad_checkpoint"
Step = tuple[Node, Node]  # (node, what computes its output)
Values = dict[Node, Tensor]


@dataclass(frozen=True)
class Segment:
    """Steps, one right after the other, of which only the `outputs` are kept for the backward pass. `name`: of the part
    of the net."""

    name: str
    steps: tuple[Step, ...]
    outputs: tuple[Node, ...]

    @property
    def inner(self) -> frozenset[Node]:
        """The nodes whose output is not kept."""
        return frozenset(node for node, _ in self.steps) - set(self.outputs)

    def run(self, values: Values, hooks: Hooks | None = None) -> None:
        """Computes the outputs from `values`, and puts them there. `hooks`: how tensors from outside are saved."""
        read = {node: values[node] for _, call in self.steps for node in call.inputs if node in values}
        with recomputed(hooks):
            for node, call in self.steps:
                read[node] = compute(call, read)
        values |= {node: read[node] for node in self.outputs}


Group = tuple[str, frozenset[Node]]  # a name, and the nodes


def segments(steps: Sequence[Step], groups: Sequence[Group], kept: Set[Node], joint: Set[Node]) -> list[Segment]:
    """The runs of steps whose nodes are of one group, in order. `kept`: nodes that others read, `joint`: those that are
    computed just before another one, for it and others.

    Layers that do something anew at each step (write files, look at the step) are left out.
    """
    group_of = {node: number for number, (_, nodes) in enumerate(groups) for node in nodes}
    runs: list[tuple[int, list[Step]]] = []
    for step, number in zip(steps, _memberships(steps, group_of, joint), strict=True):
        if runs and runs[-1][0] == number:
            runs[-1][1].append(step)
        else:
            runs.append((number, [step]))
    readers = _readers(steps)
    return [_segment(groups[number][0], part, readers, kept) for number, part in runs if number >= 0]


def _memberships(steps: Sequence[Step], group_of: Mapping[Node, int], joint: Set[Node]) -> list[int]:
    """The group of each step, -1: none. Joint ones are of the group of the step behind them."""
    found: list[int] = []
    following = -1
    for node, call in reversed(steps):
        following = following if node in joint else group_of.get(node, -1)
        found.append(-1 if call.layer.differs_by_step else following)
    return found[::-1]


def _readers(steps: Iterable[Step]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for node, call in steps:
        for read in call.inputs:
            found.setdefault(read, []).append(node)
    return found


def _segment(name: str, part: Sequence[Step], readers: Mapping[Node, Sequence[Node]], kept: Set[Node]) -> Segment:
    inside = {node for node, _ in part}

    def is_read(node: Node) -> bool:
        return node in kept or any(reader not in inside for reader in readers.get(node, ()))

    outputs = [node for node, _ in part if is_read(node)]
    return Segment(name, tuple(part), tuple(outputs or [part[-1][0]]))


# --- which parts ------------------------------------------------------------------------------------------------------


def groups_of(nodes: Sequence[Node], layers: Iterable[Layer], option: ConfigValue) -> list[Group]:
    """The parts by the option of sub-networks, and by the config's: True for all sub-networks of the root, or a list of
    names and patterns of layers, each a part. ConfigError for a name that there is not."""
    names = {node: full_name(node) for node in nodes}
    wanted = [*_of_config(option, names), *_of_layers(layers, names)]
    taken: set[Node] = set()
    found = []
    for name, part in wanted:
        own = frozenset(part) - taken
        taken |= own
        found.append((name, own))
    return found


def _of_config(option: ConfigValue, names: Mapping[Node, str]) -> Iterator[tuple[str, set[Node]]]:
    if option in (None, False):
        return
    if option is True:
        option = [name for node, name in names.items() if isinstance(node.layer, Subnetwork) and "/" not in name]
    if isinstance(option, str) or not isinstance(option, list | tuple) or not all(isinstance(n, str) for n in option):
        raise ConfigError(OPTION, f"must be True or a list of names of layers, but is {option!r} instead")
    for name in option:
        yield name, nodes_of(name, names, OPTION)


def _of_layers(layers: Iterable[Layer], names: Mapping[Node, str]) -> Iterator[tuple[str, set[Node]]]:
    for layer in layers:
        if not isinstance(layer, Subnetwork) or not layer.grad_checkpoint:
            continue
        own, path = [name for node, name in names.items() if node.layer is layer], f'{layer.path}["{OPTION}"]'
        if not own:
            raise ConfigError(path, "is not possible inside of a loop; give the loop in the config's `grad_checkpoint`")
        if layer.grad_checkpoint is True:
            yield own[0], nodes_of(own[0], names, path)
            continue
        for name in layer.grad_checkpoint:
            yield f"{own[0]}/{name}", nodes_of(f"{own[0]}/{name}", names, path)


def nodes_of(name: str, names: Mapping[Node, str], path: str) -> set[Node]:
    """The nodes of a layer or pattern, and all inside of it; the output of a sub-network itself is no computation."""
    found = {node for node, own in names.items() if _matches(own, name) and not isinstance(node.layer, Subnetwork)}
    if not found:
        raise ConfigError(path, f"unknown layer {name!r}{did_you_mean(name, list(names.values()))}")
    return found


def _matches(own: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(own, pattern) or fnmatch.fnmatchcase(own, f"{pattern}/*")
