"""Attention written in layers: dot, scale and bias, softmax_over_spatial, dropout, and a weighted sum."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from returnn_lite.layers.attention import GenericAttention, SoftmaxOverSpatial
from returnn_lite.layers.copy import Copy, Dropout
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.dot import Dot
from returnn_lite.layers.elementwise import Combine
from returnn_lite.layers.eval import Eval

NUMBER = r"([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"
SCALED = re.compile(rf"\s*source\(0\)\s*([*/])\s*{NUMBER}\s*|\s*{NUMBER}\s*\*\s*source\(0\)\s*")
Readers = Callable[[Node], Sequence[Node]]


@dataclass(frozen=True)
class Chain:
    """The layers of one attention, in order: `product`, `energies` (what scales or shifts its result), `softmax`,
    `between` (copies, which may drop weights out), `last`."""

    product: Node
    energies: tuple[Node, ...]
    softmax: Node
    between: tuple[Node, ...]
    last: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them."""
        return (self.product, *self.energies, self.softmax, *self.between, self.last)

    @property
    def weights(self) -> Node:
        """Whose output is the weights."""
        return self.between[-1] if self.between else self.softmax

    @property
    def values(self) -> Node:
        """What is summed with these weights."""
        return next(n for n in self.last.inputs if n is not self.weights)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """What the layers read of others."""
        own = set(self.nodes)
        return tuple(dict.fromkeys(n for node in self.nodes for n in node.inputs if n not in own))


def chain_around(softmax: Node, readers: Readers) -> Chain | None:
    """The attention of which `softmax` gives the weights; None if it is no part of one.

    `readers`: who reads a layer; none where others see it, too.
    """
    if not _gives_weights(softmax):
        return None
    energies = _energies(softmax, readers)
    between = _between(softmax, readers)
    if not energies or not between:
        return None
    *copies, last = between
    if type(last.layer) not in (Dot, GenericAttention) or len(set(last.inputs)) != 2 or last.outputs_as_params:
        return None
    return Chain(energies[0], tuple(energies[1:]), softmax, tuple(copies), last)


def _gives_weights(node: Node) -> bool:
    """Whether the layer is a softmax masked by the lengths alone."""
    layer = node.layer
    return (
        isinstance(layer, SoftmaxOverSpatial)
        and len(node.inputs) == 1
        and not (layer.log_space or layer.options.dropout)
        and layer.use_time_mask is None
        and layer.window_size is None
        and (layer.energy_factor or 1.0) > 0
        and layer.infinity == float("inf")
    )


def _energies(softmax: Node, readers: Readers) -> list[Node]:
    """The layers from the product to the softmax; empty where there is no product."""
    found: list[Node] = []
    node = softmax
    while not found or type(found[0].layer) is not Dot:
        candidates = [n for n in node.sources if len(readers(n)) == 1 and is_energy(n)]
        if len(candidates) != 1 or candidates[0].after:
            return []
        node = candidates[0]
        found.insert(0, node)
    return found if found[0].sources[0] is not found[0].sources[1] else []


def _between(softmax: Node, readers: Readers) -> list[Node]:
    """The layers behind the softmax, the last one of which is no copy; empty where others see some."""
    found = [softmax]
    while found[-1] is softmax or type(found[-1].layer) in (Copy, Dropout):
        behind = readers(found[-1])
        if len(behind) != 1 or found[-1].after:
            return []
        found.append(behind[0])
    return found[1:]


def is_energy(node: Node) -> bool:
    """Whether the layer is a product, or scales or shifts one."""
    layer = node.layer
    if type(layer) is Dot:
        return len(node.sources) == 2
    return factor_of(layer) is not None or adds(layer) and len(node.sources) == 2


def factor_of(layer: Layer) -> float | None:
    """The number that an `eval` multiplies its only source by; None for all other layers."""
    if type(layer) is not Eval or not isinstance(layer.expression, str) or layer.options.out_type:
        return None
    match = SCALED.fullmatch(layer.expression)
    if match is None:
        return None
    sign, right, left = match.groups()
    return float(left) if left else 1 / float(right) if sign == "/" else float(right)


def adds(layer: Layer) -> bool:
    """Whether the layer is a sum and nothing more."""
    plain = isinstance(layer, Combine) and not (layer.with_bias or layer.activation_text or layer.options.out_type)
    return type(layer) is Combine and plain and layer.kind == "add"
