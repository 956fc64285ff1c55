"""The ticks of a loop: layers inside computed frame by frame, what is carried from one tick to the next, the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import Tick
from returnn_lite.layers.linear import Linear
from returnn_lite.network.building import compute
from returnn_lite.rec.choice import Moment, reads_logits
from returnn_lite.rec.leave import SHARE, Presence, presence
from returnn_lite.rec.loop_net import InnerSource, counter
from returnn_lite.rec.varying import frames, varies
from returnn_lite.tensor import Beam, Dim, Spec, Tensor, latest_beam, to_beam
from returnn_lite.tensor.spec import vector
from returnn_lite.tensor.tensor import ancestor_index

if TYPE_CHECKING:
    from returnn_lite.rec.loop import LoopRun

Turn = Callable[[Node, dict[Node, Tensor], int], Tensor]


@dataclass
class Carried:
    """Tensors (B, …) that a layer carries from tick to tick, and the beam their rows belong to."""

    tensors: dict[str, torch.Tensor]
    beam: Beam | None = None

    def on(self, beam: Beam | None) -> dict[str, torch.Tensor]:
        """The tensors with their rows re-ordered to `beam`."""
        if beam is self.beam or beam is None or not self.tensors:
            return self.tensors
        index = ancestor_index(beam, self.beam) if self.beam is not None else _repeating_rows(beam, self.tensors)
        return self.tensors if index is None else {k: v.index_select(0, index) for k, v in self.tensors.items()}

    def narrowed(self, rows: torch.Tensor, beam: Beam) -> Carried:
        """Only these rows, those of `beam`; the tensors must hold its parent's."""
        return Carried({k: v.index_select(0, rows) for k, v in self.on(beam.parent).items()}, beam)


def _repeating_rows(beam: Beam, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Every sequence `beam.size` times."""
    batch = next(iter(tensors.values())).shape[0]
    return torch.arange(batch, device=beam.source.device).repeat_interleave(beam.size)


class Ticks:
    """The ticks of one run. `collect`: layers whose frames are needed afterwards; `frames[node]` holds them."""

    def __init__(self, run: LoopRun, inside: list[Node], collect: list[Node]) -> None:
        self.run_of = run
        self.layer = run.layer
        self.inside = inside
        self.collect = collect
        self.frames: dict[Node, list[Tensor]] = {n: [] for n in collect}
        self.beam: Beam | None = run.base_beam
        self.beams: list[Beam | None] = []
        self.states: dict[Node, Carried] = {}
        self.constants: dict[Node, Any] = {}
        self.step_refs: dict[Node, dict[str, Node]] = {}
        self.ended: Tensor | None = None
        self.counted: torch.Tensor | None = None
        self.width = self._width()
        self.presence: Presence | None = None
        self.turn_all = turn_all

    # --- what does not change -----------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Sorts what the layers inside read: constants, frames of sequences, previous outputs, the counter."""
        known = set(self.inside)
        self.values: dict[Node, Tensor] = {}
        self.sequences: list[tuple[Node, Tensor, tuple[torch.Tensor, ...]]] = []
        self.previous: list[Node] = []
        self.growing = any(getattr(node.layer, "grows", False) for node in self.inside)
        self.varying: list[tuple[Node, list[Tensor]]] = []
        self.counters: list[Node] = []
        for node in dict.fromkeys(n for inner in self.inside for n in inner.inputs if n not in known):
            if node.previous is not None and node.previous in known:
                self.previous.append(node)
            elif isinstance(node.layer, InnerSource) and node.layer.kind == "counter":
                self.counters.append(node)
            else:
                self._add_outside(node, self.run_of.value(node))
        self._prepare_states()
        self._leave_out_softmax()
        done = self._last_reads()
        self.turns = [(node, self._turn(node), done.get(node, ())) for node in self.inside]
        self.presence = presence(self)

    def _leave_out_softmax(self) -> None:
        """Has softmax layers leave out the softmax, if choices alone read them: these start from the logits."""
        others = {read for node in self.inside if not reads_logits(node.layer) for read in node.inputs}
        kept = {*others, *self.collect, *(node.previous for node in self.previous), self._end_node()}
        for node in self.inside:
            if isinstance(node.layer, Linear) and node.layer.activation.name == "softmax":
                node.layer.only_logits = self.width is not None and node not in kept and not node.after

    def _last_reads(self) -> dict[Node, list[Node]]:
        """For each layer the layers inside that nothing reads after it: their values need not be kept."""
        kept = {*self.collect, *(node.previous for node in self.previous), self._end_node()}
        last = {read: node for node in self.inside for read in node.inputs if read not in kept}
        done: dict[Node, list[Node]] = {}
        for read in self.inside:
            if read in last:
                done.setdefault(last[read], []).append(read)
        return done

    def _turn(self, node: Node) -> Turn:
        """How a layer is computed at each tick."""
        if getattr(node.layer, "makes_beam", False):
            return self._choose
        return self._step if node in self.states else self._compute

    def _width(self) -> int | None:
        """The beam size at the end of a tick; None if no layer inside searches."""
        sizes = [getattr(n.layer, "beam_size", None) for n in self.inside if getattr(n.layer, "searches", False)]
        return sizes[-1] if sizes else None

    def _add_outside(self, node: Node, x: Tensor) -> None:
        dim = self.run_of.dim
        if varies(x, dim):
            self.varying.append((node, frames(x, dim)))
            self.growing = True
            return
        if dim not in x.spec.loop:
            self.values[node] = x
            return
        spec = x.spec.in_loop(dim)
        template = Tensor(x.data[:0], _frame_spec(spec, dim), x.lengths, x.beam)
        self.sequences.append((node, template, x.data.unbind(x.spec.dims.index(dim))))

    def _prepare_states(self) -> None:
        make = self.run_of.initial
        for node in self.inside:
            layer: Any = node.layer
            if self._is_stateful(node):
                self.constants[node] = layer.begin_loop(make.batch)
                refs = {
                    k: self.run_of.value(n) for k, n in node.refs.items() if (n.previous or n) not in self.run_of.inside
                }
                self.states[node] = Carried(layer.first_state(make, refs), self.beam)
                self.step_refs[node] = {k: n for k, n in node.refs.items() if not k.startswith("initial_state/")}
        for node in self.previous:
            if node.previous is not None:
                self.values[node] = to_beam(self.run_of.first_output(node.previous), self.beam)
        device = make.device
        self.counted = torch.zeros(make.batch, dtype=torch.int32, device=device)
        self.ended = Tensor(torch.zeros(make.batch, dtype=torch.bool, device=device), vector("bool"), {}, self.beam)

    def _is_stateful(self, node: Node) -> bool:
        layer: Any = node.layer
        return bool(layer.hidden_state and layer.carries_state(tuple(n.spec for n in node.sources)))

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All ticks: as many as known, or until every sequence has ended or the bound is reached."""
        self._prepare()
        compiled = self.layer.compiled
        if compiled is None:
            self._all_ticks()
            return
        with compiled.running() as self.turn_all:
            self._all_ticks()

    def _all_ticks(self) -> None:
        known = self.run_of.size
        bound = self.layer.length.bound(self.run_of.outer) if known is None else known
        end = self._end_node()
        at = self.layer.context.run  # where functions of configs see the tick, the layers computed so far, the ends
        outer = {key: at.get(key) for key in ("tick", "values", "ended")}
        at["values"] = [self.values, self.run_of.whole, *(outer["values"] or ())]
        at["ended"] = self._ended_flags
        for tick in range(bound):
            at["tick"] = tick
            self._tick(tick)
            self._count(end)
            self.beams.append(self.beam)
            if end is not None and not self._goes_on(tick):
                break
        at.update(outer)

    def _goes_on(self, tick: int) -> bool:
        """Whether any sequence goes on; those that do not may leave the batch."""
        if self.ended is None or self.beam is None or self.presence is None:
            return self.ended is None or not bool(self.ended.data.all())
        goes_on = ~self.ended.data.reshape(-1, self.beam.size).all(1)
        count = int(goes_on.sum())
        if 0 < count <= len(goes_on) - max(1, len(goes_on) // SHARE):
            self.presence.leave(self, goes_on, tick)
        return count > 0

    def _end_node(self) -> Node | None:
        return self.run_of.nodes.get("end") if self.run_of.size is None else None

    def _tick(self, tick: int) -> None:
        """One tick: frames in, every layer in order, what is carried on to the next one."""
        values = self.values
        for node, template, whole in self.sequences:
            values[node] = Tensor(whole[tick], template.spec, template.lengths, template.beam)
        for node, made in self.varying:
            values[node] = made[tick]
        for node in self.counters:
            values[node] = counter(tick + self.run_of.offset, self.run_of.initial.device)
        self.turn_all(self, values, tick)
        for node in self.collect:
            self.frames[node].append(values[node])
        for node in self.previous:
            if node.previous is not None:
                values[node] = to_beam(values[node.previous], self.beam)
                if self.growing:
                    _forget_lengths(values[node])
        if self.beam is not None:
            self.states = {n: Carried(c.on(self.beam), self.beam) for n, c in self.states.items()}

    def _compute(self, node: Node, values: dict[Node, Tensor], tick: int) -> Tensor:
        """A layer that sees nothing of earlier ticks but what it reads."""
        return compute(node, values)

    def _choose(self, node: Node, values: dict[Node, Tensor], tick: int) -> Tensor:
        """A search choice: from here on there are other hypotheses."""
        layer: Any = node.layer
        over = self._over_on(self.beam, tick, 0) if "target" in node.refs else None
        moment = Moment(tick, self.beam, self._ended_on(self.beam, tick), over, self.width)
        refs = {k: values[n] for k, n in node.refs.items()}
        out: Tensor = layer.choose([values[n] for n in node.sources], refs, moment)
        self.beam = out.beam
        return out

    def _step(self, node: Node, values: dict[Node, Tensor], number: int) -> Tensor:
        """A layer with a state of its own."""
        layer: Any = node.layer
        sources = [values[n] for n in node.sources]
        refs = {k: values[n] for k, n in self.step_refs[node].items()}
        beam = self.states[node].beam
        if self.layer.context.beams:
            beam = latest_beam([*sources, *refs.values()]) or beam
        state = self.states[node].on(beam)
        tick = Tick(number, {k: to_beam(x, beam) for k, x in refs.items()}, lambda: self._ended_on(beam, number))
        out, new = layer.step(self.constants[node], [to_beam(x, beam) for x in sources], state, tick)
        self.states[node] = Carried(new, beam)
        if out.beam is not beam and out.spec.batch is not None:  # what it reads has no batch axis, its state has
            out.beam = beam
        for step in node.after:
            out = step(out, sources)
        return out

    def _ended_on(self, beam: Beam | None, tick: int) -> torch.Tensor | None:
        """Which hypotheses have ended before this tick; None if none can have."""
        if self.ended is None:
            return None
        if self.run_of.size is None:
            return to_beam(self.ended, beam).data
        return self._over_on(beam, tick, 0 if self.layer.include_eos else 1)

    def _ended_flags(self, beam: Beam | None) -> torch.Tensor:
        """Which hypotheses (of `beam`, else of the present one) have ended before this tick, bool (B * K,)."""
        beam = self.beam if beam is None else beam
        ended = self._ended_on(beam, self.layer.context.run["tick"])
        count = self.run_of.initial.batch * (beam.size if beam is not None else 1)
        return torch.zeros(count, dtype=torch.bool, device=self.run_of.initial.device) if ended is None else ended

    def _over_on(self, beam: Beam | None, tick: int, more: int) -> torch.Tensor | None:
        """Which sequences are over since `more` ticks, bool (B,); None if their lengths are not known."""
        lengths = self.run_of.lengths
        if lengths is None or self.run_of.size is None:
            return None
        outer = self.run_of.base_beam
        if outer is None and beam is not None:
            return tick >= lengths.tile(beam.size).values + more
        return tick >= Carried({"n": lengths.values}, outer).on(beam)["n"] + more

    def _count(self, end: Node | None) -> None:
        """Adds this tick to the lengths of the sequences that go on, and notes which have ended."""
        if end is None or self.ended is None or self.counted is None:
            return
        before = to_beam(self.ended, self.beam)
        old = Carried({"n": self.counted}, self.ended.beam).on(self.beam)["n"]
        now = to_beam(self.values[end], self.beam).data | before.data
        runs = ~before.data if self.layer.include_eos else ~now
        self.counted = old + runs.to(torch.int32)
        self.ended = Tensor(now, before.spec, {}, self.beam)


def turn_all(ticks: Ticks, values: dict[Node, Tensor], tick: int) -> None:
    """Computes every layer inside, in order, and forgets what is not read again."""
    for node, turn, done in ticks.turns:
        values[node] = turn(node, values, tick)
        for read in done:
            del values[read]


def _forget_lengths(x: Tensor) -> None:
    """Drops the lengths of axes that grow with the ticks, but for its own axes: at the next tick they are others."""
    x.lengths = {d: n for d, n in x.lengths.items() if n.dims or d in x.spec.dims}


def _frame_spec(spec: Spec, dim: Dim) -> Spec:
    """The Spec of one frame: the axis is no loop axis any more."""
    loop = spec.loop - {dim}
    return Spec(spec.dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature, loop=loop)
