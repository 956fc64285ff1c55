"""The pass over a program's nodes: patterns of layers that one call computes are replaced by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from returnn_lite.config import Config
from returnn_lite.layers.core.node import Node
from returnn_lite.network.building import compute
from returnn_lite.network.fusion.attention import Attention
from returnn_lite.network.fusion.attention_chain import chain_around
from returnn_lite.network.fusion.joint import joined, joint_groups
from returnn_lite.tensor import Tensor

OPTION = "network_fusion"


@dataclass(frozen=True)
class Fusion:
    """`calls`: the node that computes the output of another one, from what it reads itself; `absorbed`: the nodes whose
    outputs then are not needed; `before`: what is computed just before a node, for it and others; `lines`: what was
    fused, for the log."""

    calls: Mapping[Node, Node] = field(default_factory=dict)
    absorbed: frozenset[Node] = frozenset()
    before: Mapping[Node, Node] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def steps(self, nodes: Iterable[Node]) -> tuple[tuple[Node, Node], ...]:
        """(node, what computes it) for the nodes that are left, in their order."""
        found: list[tuple[Node, Node]] = []
        for node in nodes:
            if node in self.before:
                found.append((self.before[node], self.before[node]))
            if node not in self.absorbed:
                found.append((node, self.calls.get(node, node)))
        return tuple(found)


class Values(dict[Node, Tensor]):
    """Outputs by node; that of a node which another one has absorbed is computed when somebody asks for it."""

    def __init__(self, absorbed: frozenset[Node]) -> None:
        super().__init__()
        self.absorbed = absorbed

    def __missing__(self, node: Node) -> Tensor:
        if node not in self.absorbed:
            raise KeyError(node)
        self[node] = made = compute(node, self)
        return made


def fuse(nodes: Sequence[Node], kept: Set[Node], config: Config, *, joins: bool = True) -> Fusion:
    """What can be fused among `nodes`, which run in this order; outputs of `kept` are read by others than these.

    `joins`: whether layers of one source may be computed together. The config's option `network_fusion` False switches
    all of it off.
    """
    if not config.bool(OPTION, True):
        return Fusion()
    reading: dict[Node, list[Node]] = {}
    for node in nodes:
        for read in dict.fromkeys(node.inputs):
            reading.setdefault(read, []).append(node)
    inside = set(nodes)

    def readers(node: Node) -> Sequence[Node]:
        hidden = node in inside and node not in kept and not is_seen(node)
        return reading.get(node, ()) if hidden else ()

    calls: dict[Node, Node] = {}
    absorbed: set[Node] = set()
    lines: list[str] = []
    for node in nodes:
        chain = chain_around(node, readers)
        call = Attention(chain) if chain is not None else None
        if chain is not None and call is not None and call.fits():
            last = chain.last
            calls[last] = Node(last.name, call, list(chain.inputs), spec=last.spec, after=last.after)
            absorbed.update(chain.nodes[:-1])
            lines.append(f"{', '.join(n.name for n in chain.nodes)}: attention")
    before: dict[Node, Node] = {}
    for group in joint_groups(nodes) if joins else ():
        made = joined(group, nodes)
        if made is not None:
            before[group[0]], more = made
            calls.update(more)
            lines.append(f"{', '.join(n.name for n in group)}: {made[0].layer.class_name}")
    return Fusion(calls, frozenset(absorbed), before, tuple(lines))


def is_seen(node: Node) -> bool:
    """Whether the output is for others than the layers that read it."""
    options = node.layer.options
    marked = options.is_output_layer or options.loss or options.need_last or options.register_as_extern_data
    return bool(marked) or bool(node.outputs_as_params)
