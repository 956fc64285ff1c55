"""The layers of a loop as a graph: a label for each, which of them are needed, and what the plan must know of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import ticking
from returnn_lite.network.construct import Net
from returnn_lite.network.inner import InnerLayers
from returnn_lite.network.sources import PartOf
from returnn_lite.rec.inputs import InnerSource, is_counter
from returnn_lite.rec.loop_net import LoopNet
from returnn_lite.rec.plan import Item, Plan, make_plan

_TICKS_UNKNOWN = "the number of ticks is known only at the end of the loop"


class LoopGraph:
    """The inner layers of a linked loop: `labels` and back (`nodes`); "sub/inner" for those of sub-networks.

    `plan` says where they run.
    """

    def __init__(self, inner: LoopNet) -> None:
        self.inner = inner
        self.nets = dict(_nets(inner))
        self.labels: dict[Node, str] = {n: _label(n, inner) for n in inner.order if _computes(n)}
        self.nodes: dict[str, Node] = {label: n for n, label in self.labels.items()}
        self.plan = Plan()
        self._inside: frozenset[str] = frozenset()

    def is_inside(self, label: str) -> bool:
        """Whether a layer runs tick by tick."""
        return label in self._inside

    def roots(self) -> Iterator[tuple[str, Node]]:
        """Output, losses and their targets, output layers, those whose last frame is kept; of sub-networks too."""
        for prefix, net in self.nets.items():
            for name, node in list(net.nodes.items()):
                is_root = node.layer.passes_through or _is_root(net.descriptions.get(name) or {})
                if name in net.descriptions and (prefix + name == "output" or is_root):
                    yield prefix + name, node
            yield from ((prefix + name, net.nodes[name]) for name, *_ in loop_losses(net) if name in net.nodes)
        for name in self.inner.loss_targets():
            yield name, self.nodes.get(name) or self.inner.nodes[name]

    def with_loss(self) -> Iterator[tuple[str, Net, Node]]:
        """(label, net, node) of the layers with a loss."""
        for prefix, net in self.nets.items():
            for name, node in list(net.nodes.items()):
                if name in net.descriptions and node.name == name and node.description.get("loss"):
                    yield prefix + name, net, node
            for name, _, inner_net, node in loop_losses(net):
                yield prefix + name, inner_net, node

    def accumulated(self) -> set[str]:
        """The layers whose frames may be read after the loop."""
        return {label for label, _ in self.roots()}

    def make_plan(self, *, known_length: bool, optimize: bool) -> None:
        """Decides which layers run before, inside and after the loop; `end` is needed if it decides on the length."""
        needed = self._needed(end=not known_length)
        nodes = [n for n in self.labels if n in needed and not isinstance(n.layer, PartOf)]
        read_before = {_owner(n.previous) for n in needed if n.previous is not None}
        items = [self._item(n, read_before, known_length) for n in nodes]
        plan = make_plan(items, optimize=optimize)
        parts: dict[str, list[str]] = {}
        for node in self.labels:
            if node in needed and isinstance(node.layer, PartOf):
                parts.setdefault(self.labels[_owner(node)], []).append(self.labels[node])
        self.plan = plan.with_parts(parts)
        self._inside = frozenset(self.plan.inside)

    def _needed(self, *, end: bool) -> set[Node]:
        waiting = [node for _, node in self.roots()]
        if end and "end" in self.inner.nodes:
            waiting.append(self.inner.nodes["end"])
        found: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += node.inputs
                waiting += [node.previous] if node.previous is not None else []
        return found

    def _item(self, node: Node, read_before: set[Node], known_length: bool) -> Item:
        labels = self.labels
        current = {labels[_owner(n)] for n in node.inputs if n in labels}
        read = {_owner(n.previous) for n in node.inputs if n.previous is not None}
        previous = {labels[n] for n in read if n in labels}
        stays = "the end of the loop" if node is self.inner.nodes.get("end") and not known_length else _stays(node)
        needs_ticks = ticking(node) is not None or previous or node in read_before or _reads_counter(node)
        not_before = _TICKS_UNKNOWN if needs_ticks and not known_length else ""
        label = labels[node]
        return Item(label, frozenset(current), frozenset(previous), stays, not_before, _partners(node, label))


def loop_losses(net: Net) -> Iterator[tuple[str, str, Net, Node]]:
    """("loop/label", "loop", net, node) of the layers with a loss in the loops inside this net."""
    for name, subnet in list(net.subnets.items()):
        if subnet.is_loop and name in net.nodes:
            layer = net.nodes[name].layer
            if isinstance(layer, InnerLayers):
                yield from ((f"{name}/{label}", name, inner, node) for label, inner, node in layer.loss_nodes())


def _partners(node: Node, label: str) -> frozenset[str]:
    """The layers that `collocate_with` names."""
    named = node.layer.options.collocate_with or ()
    net = label[: label.rfind("/") + 1]
    return frozenset(net + name for name in ([named] if isinstance(named, str) else named))


def _owner(node: Node) -> Node:
    """The layer whose output this is a part of, or the node itself: parts run where their layer runs."""
    while isinstance(node.layer, PartOf):
        node = node.sources[0]
    return node


def _computes(node: Node) -> bool:
    return node.previous is None and not isinstance(node.layer, InnerSource)


def _label(node: Node, inner: LoopNet) -> str:
    inside = node.layer.path.removeprefix(f"{inner.path}[")
    return "/".join(re.findall(r'"([^"]+)"', inside)[:1] + re.findall(r'\["subnetwork"\]\["([^"]+)"', inside))


# Options of a layer whose output is read after the loop: by the net, the losses, the objective.
_READ_OUTSIDE = ("loss", "is_output_layer", "need_last", "darc1", "spatial_smoothing")


def _is_root(description: Mapping[str, Any]) -> bool:
    return any(description.get(option) for option in _READ_OUTSIDE)


def _reads_counter(node: Node) -> bool:
    return any(map(is_counter, node.inputs))


def _stays(node: Node) -> str:
    """Why a layer must run inside, "" if nothing forbids to move it."""
    layer = ticking(node)
    if layer is not None and layer.needs_state:
        return "its state is read tick by tick"
    return node.layer.stays_in_loop


def _nets(net: Net) -> Iterator[tuple[str, Net]]:
    """The net and those of its sub-networks, by the prefix of their layers' labels."""
    waiting = [("", net)]
    while waiting:
        prefix, found = waiting.pop()
        yield prefix, found
        inner = [(f"{prefix}{name}/", subnet) for name, subnet in found.subnets.items() if not subnet.is_loop]
        waiting += reversed(inner)
