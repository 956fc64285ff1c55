"""`Node`: a layer in its net, and whom it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import NetName
from returnn_lite.layers.core.params import Derived
from returnn_lite.tensor import Spec, Tensor

OutputStep = Callable[[Tensor, list[Tensor]], Tensor]  # output and sources of a layer -> its changed output
Slot = tuple[dict[str, Any], str]  # a dict that holds a parameter, and the key


@dataclass(eq=False)
class Node:
    """A layer in its net: `sources` in the order of `from`, `refs` by the option that names them.

    `previous`: for a `prev:` node the node whose last frame it reads (an edge that is no dependency within a tick);
    `initial`: the node that `initial_output` names. `spec` is None until inferred. `after`: what common options do to
    the output. `param_nodes`: nodes whose output is used as a parameter, by name; `outputs_as_params`: where.
    """

    name: str
    layer: Layer
    sources: list[Node] = field(default_factory=list)
    refs: dict[str, Node] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    previous: Node | None = None
    initial: Node | None = None
    spec: Spec | None = None
    built: bool = False
    after: list[OutputStep] = field(default_factory=list)
    param_nodes: dict[str, Node] = field(default_factory=dict)
    outputs_as_params: list[tuple[list[Slot], Derived]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Node({self.layer.path or self.name})"

    @property
    def inputs(self) -> list[Node]:
        """All nodes whose value of the same tick is needed."""
        return [*self.sources, *self.refs.values(), *self.param_nodes.values()]


def last_reads(steps: Iterable[tuple[Node, Sequence[Node]]], kept: Set[Node | None]) -> dict[Node, list[Node]]:
    """For each of the steps (node, what it reads) those of their nodes that no later one reads; never those `kept`."""
    steps = list(steps)
    last = {read: node for node, inputs in steps for read in inputs if read not in kept}
    done: dict[Node, list[Node]] = {}
    for node, _ in steps:
        if node in last:
            done.setdefault(last[node], []).append(node)
    return done


def full_name(node: Node) -> str:
    """The name of its layer from the root net on: "encoder/linear"."""
    names = [name for name in re.findall(r'\["([^"]*)"\]', node.layer.path) if name not in ("subnetwork", "unit")]
    return "/".join(names) or node.name


def described(node: Node) -> str:
    """Name, class, sources, axes and parameters of a node, in one line."""
    layer = node.layer
    read = ", ".join([*(n.name for n in node.sources), *(f"{key}={n.name}" for key, n in node.refs.items())])
    owned = layer.scope.owned if layer.scope is not None else {}
    params = "".join(f"; {name} {tuple(p.shape)}" for name, p in owned.items())
    return f"{full_name(node)}: {layer.class_name}({read}) -> {node.spec}{params}"


@dataclass
class NamedNet(NetName):
    """A net as functions of configs see it: its nodes by name, the net around it, the layer that it belongs to."""

    nodes: dict[str, Node] = field(default_factory=dict)
    parent: NamedNet | None = None
    owner: Layer | None = None
