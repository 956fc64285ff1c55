"""The Specs of the layers of a loop, which depend on one another in circles."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.node import Node
from returnn_lite.network.building import infer
from returnn_lite.rec.inputs import Previous

SHOWN = 10  # names in an error text


def infer_all(nodes: Sequence[Node]) -> None:
    """Specs of the layers of a loop as their least fixpoint: from unknown, round by round, until nothing changes.

    A round visits, in order, the nodes that read something that has changed since their last turn; at the end all are
    visited once more. What a layer refuses counts only then: before, some of its sources may be known in part. Where
    layers know no more because they read one another in a circle, one of them begins with what its options say
    (`Layer.supposed_spec`). Raises ConfigError naming the layers whose axes stay unknown or never settle.
    """
    readers = _readers(nodes)
    errors = _settle(nodes, list(range(len(nodes))), readers)
    supposed = set[Node]()
    while (unknown := _unknown(nodes)) and (begun := _begin(nodes, supposed)) is not None:
        supposed.add(nodes[begun])
        errors = _settle(nodes, sorted(set(readers[begun])), readers)
    if errors:
        raise errors[0]
    if unknown:
        shown = ", ".join(repr(n.name) for n in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        text = "could not be determined: the layers of this loop that it reads depend on itself alone"
        raise unknown[0].layer.error(f"the axes of {shown}{more} {text}")


def _settle(nodes: Sequence[Node], waiting: list[int], readers: list[list[int]]) -> list[ConfigError]:
    """Rounds from the nodes `waiting` until nothing changes; returns what is refused then."""
    rounds = len(nodes) + 5
    changed, errors = False, list[ConfigError]()
    while waiting:
        if not rounds:
            text = "the axes of the layers of this loop do not converge; check `prev:` references"
            raise errors[0] if errors else nodes[-1].layer.error(text)
        rounds -= 1
        whole = len(waiting) == len(nodes)
        waiting, changed, errors = _round(nodes, waiting, readers)
        if not waiting and (changed or not whole):
            waiting = list(range(len(nodes)))
    return errors


def _unknown(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.spec is None and node.previous is None]


def _begin(nodes: Sequence[Node], supposed: set[Node]) -> int | None:
    """Gives one unknown node a supposed Spec, once: rather one that reads something known. Returns its number."""
    unknown = [i for i, n in enumerate(nodes) if n.spec is None and n.previous is None and n not in supposed]
    for i in sorted(unknown, key=lambda i: all(n.spec is None for n in nodes[i].sources)):
        node = nodes[i]
        supposed.add(node)
        try:
            node.spec = node.layer.supposed_spec(
                tuple(n.spec for n in node.sources), {k: n.spec for k, n in node.refs.items()}
            )
        except (ConfigError, AttributeError, TypeError, ValueError):  # it cannot say without the sources
            node.spec = None
        if node.spec is not None:
            return i
    return None


def _readers(nodes: Sequence[Node]) -> list[list[int]]:
    """For each node the numbers of those that read it."""
    number = {node: i for i, node in enumerate(nodes)}
    readers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        read = (*node.inputs, node.previous) if isinstance(node.layer, Previous) else node.inputs
        for other in read:
            if other in number:
                readers[number[other]].append(i)
    return readers


def _round(
    nodes: Sequence[Node], numbers: list[int], readers: list[list[int]]
) -> tuple[list[int], bool, list[ConfigError]]:
    """These nodes (rising numbers), and those behind them that see changes.

    Returns the nodes before them that saw one, whether anything changed, and what was refused.
    """
    later, waiting = set[int](), set(numbers)
    changed, errors = False, list[ConfigError]()
    while numbers:
        i = heappop(numbers)
        waiting.discard(i)
        if not _changes(nodes[i], errors):
            continue
        changed = True
        for reader in readers[i]:
            if reader <= i:
                later.add(reader)
            elif reader not in waiting:
                waiting.add(reader)
                heappush(numbers, reader)
    return sorted(later), changed, errors


def _changes(node: Node, errors: list[ConfigError]) -> bool:
    """Infers a Spec anew; whether it is another one. What was known or supposed stays while nothing else is known."""
    old, node.spec = node.spec, None
    try:
        infer(node)
    except ConfigError as exc:
        errors.append(exc)
    if node.spec is None:
        node.spec = old
    return node.spec != old
