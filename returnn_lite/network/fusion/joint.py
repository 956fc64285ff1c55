"""Layers of one common source that a joint layer computes together."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.layers.core.joint import JointPart
from returnn_lite.layers.core.node import Node


def joint_groups(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes that read the same and say that they can be computed together."""
    alike: dict[object, list[Node]] = {}
    for node in nodes:
        if node.sources and not (node.refs or node.after or node.outputs_as_params or node.layer.options.dropout):
            kind = node.layer.joint_kind
            if kind is not None:
                alike.setdefault((kind, *node.sources), []).append(node)
    return [group for group in alike.values() if len(group) > 1]


def joined(group: Sequence[Node], nodes: Sequence[Node]) -> tuple[Node, dict[Node, Node]] | None:
    """The node that computes all of a group, and what computes its members and who reads them side by side; None if
    they are not computed together after all."""
    layer = group[0].layer.joint([node.layer for node in group])
    if layer is None:
        return None
    whole = Node(f"({', '.join(n.name for n in group)})", layer, list(group[0].sources))
    whole.spec = layer.output_spec(tuple(n.spec for n in whole.sources), {})
    calls = {node: Node(node.name, JointPart(i, node.layer), [whole], spec=node.spec) for i, node in enumerate(group)}
    for reader in nodes:
        if reader.sources == list(group) and reader.layer.sources == "one" and not reader.after:
            layer.whole_is_read = True
            calls[reader] = Node(
                reader.name, reader.layer, [whole], reader.refs, reader.description, spec=reader.spec,
                param_nodes=reader.param_nodes, outputs_as_params=reader.outputs_as_params,
            )  # fmt: skip
    return whole, calls
