"""`LoopProgram`: a loop as it is run – frozen, printable, a node of the net's program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.node import Node, described, last_reads
from returnn_lite.layers.core.stateful import ticking
from returnn_lite.layers.eval import Eval
from returnn_lite.network.fusion.fuse import Fusion, fuse
from returnn_lite.rec.choice import Choice
from returnn_lite.rec.compiled import CompiledTick
from returnn_lite.rec.inputs import LoopInputs, is_counter
from returnn_lite.rec.loop_options import LoopOptions
from returnn_lite.rec.plan import Plan
from returnn_lite.tensor import Dim

COMPUTE, CHOOSE, STEP = "compute", "choose", "step"


@dataclass(frozen=True)
class Turn:
    """A layer's part in every tick.

    `kind`: "compute", "choose" (a search choice), "step" (it carries a state; `refs`: what its options name, initial
    states left out). `done`: the layers inside that nothing reads after it.
    """

    node: Node
    kind: str
    refs: Mapping[str, Node]
    done: tuple[Node, ...]


@dataclass(frozen=True)
class LoopProgram:
    """What a loop runs, in this order: `before` (over the whole axis), `inside` (tick by tick), `after`.

    `layer`: the rec layer; `nodes`: the inner layers by label; `dim`: the axis. `reads`: what the layers inside read of
    outside and over the whole axis; `previous`: the "prev:" nodes they read, `counters`: the ":i". `collect`: the
    layers whose frames are needed behind the ticks. `end`: the layer that ends the loop, None if its length is known.
    `width`: the beam size behind a tick, None if nothing is searched. `grows`: axes may grow with the ticks.
    """

    layer: Layer
    options: LoopOptions
    inputs: LoopInputs
    dim: Dim
    nodes: Mapping[str, Node]
    plan: Plan
    before: tuple[Node, ...]
    inside: tuple[Node, ...]
    after: tuple[Node, ...]
    collect: tuple[Node, ...]
    end: Node | None
    reads: tuple[Node, ...]
    previous: tuple[Node, ...]
    counters: tuple[Node, ...]
    turns: tuple[Turn, ...]
    width: int | None
    grows: bool
    compiled: CompiledTick | None
    all_inside: frozenset[Node]
    fusion: Fusion  # of `before` and `after`
    seen: frozenset[Node]  # what is read behind the loop

    @cached_property
    def last_reads(self) -> Mapping[Node, Sequence[Node]]:
        """For each node of `after` the nodes among them that nothing reads any more when it has run."""
        firsts = {node.initial for node in self.nodes.values() if node.initial is not None}
        of_sums = {read for node in self.seen if isinstance(node.layer, Eval) for read in node.inputs}
        steps = ((node, list(self._read_by(node))) for node in self.after if node not in self.fusion.absorbed)
        return last_reads(steps, self.seen | firsts | of_sums)

    def _read_by(self, node: Node) -> Iterator[Node]:
        """What a node reads over the whole axis, by way of previous frames too."""
        waiting = list(self.fusion.calls.get(node, node).inputs)
        while waiting:
            yield (read := waiting.pop())
            if read.previous is not None:
                waiting += [x for x in (read.previous, read.previous.initial) if x is not None]

    @property
    def choices(self) -> list[Choice]:
        """The layers inside behind which there are other hypotheses."""
        return [n.layer for n in self.inside if isinstance(n.layer, Choice) and n.layer.makes_beam]

    def __str__(self) -> str:
        size = "until `end`" if self.dim.dynamic else "of fixed size"
        by = f"as {self.inputs.key!r}" if self.inputs.key is not None else size
        lines = [f"loop over {self.dim} ({by})"]
        reasons = {self.nodes[label]: f" ({reason})" for label, reason in self.plan.reasons.items()}
        for place, nodes in (("before", self.before), ("inside", self.inside), ("after", self.after)):
            for node in nodes:
                lines.append(f"  {place}: {described(node)}{reasons.get(node, '')}")
                lines += [f"    {line}" for line in node.layer.inside().splitlines()]
        return "\n".join([*lines, *(f"  fused {line}" for line in self.fusion.lines)])


def make_program(
    layer: Layer,
    options: LoopOptions,
    inputs: LoopInputs,
    nodes: Mapping[str, Node],
    plan: Plan,
    wanted: Iterable[str],
    compiled: CompiledTick | None,
    seen: Set[Node],
) -> LoopProgram:
    """The program of a built loop. `wanted`: labels of the layers whose frames are needed behind the loop, `seen`: what
    is read there of all."""
    dim = inputs.inner_dim
    if dim is None:
        raise layer.error("the axis of the loop is not known")
    before, inside, after = (tuple(nodes[label] for label in part) for part in (plan.before, plan.inside, plan.after))
    all_inside = frozenset(inside)
    end = None if inputs.known_length else nodes.get("end")
    read_after = {n.previous or n for reader in after for n in reader.inputs}
    labels = set(wanted)
    collect = tuple(n for label, n in nodes.items() if n in all_inside and (n in read_after or label in labels))
    read = dict.fromkeys(n for node in inside for n in node.inputs if n not in all_inside)
    previous = {n: None for n in read if n.previous is not None and n.previous in all_inside}
    counters = {n: None for n in read if n not in previous and is_counter(n)}
    kept = {*collect, *(node.previous for node in previous), end}
    searching = [n.layer.beam_size for n in inside if isinstance(n.layer, Choice) and n.layer.searches]
    width = searching[-1] if searching else None
    done = last_reads(((node, node.inputs) for node in inside), kept)
    return LoopProgram(
        layer, options, inputs, dim, nodes, plan, before, inside, after, collect, end,
        tuple(n for n in read if n not in previous and n not in counters), tuple(previous), tuple(counters),
        tuple(_turn(node, done.get(node, ())) for node in inside), width,
        any(node.layer.grows for node in inside), compiled, all_inside,
        _fusion(layer, (*before, *after), {*seen, *read, *kept}), frozenset(seen),
    )  # fmt: skip


def _fusion(layer: Layer, nodes: Sequence[Node], seen: Set[Node | None]) -> Fusion:
    """Which of these nodes one call computes, of those that nobody else sees."""
    seen |= {node.previous for node in nodes} | {n.previous for node in nodes for n in node.inputs}
    seen |= {node.initial for node in nodes}
    found = fuse(nodes, {node for node in seen if node is not None}, layer.context.config, joins=False)
    for line in found.lines:
        layer.context.log.v4(f"fused in {layer.name!r}: {line}")
    return found


def _turn(node: Node, done: Iterable[Node]) -> Turn:
    """A layer's part in every tick."""
    kind = CHOOSE if node.layer.makes_beam else STEP if ticking(node) is not None else COMPUTE
    refs = {k: n for k, n in node.refs.items() if not k.startswith("initial_state/")}
    return Turn(node, kind, refs, tuple(done))
