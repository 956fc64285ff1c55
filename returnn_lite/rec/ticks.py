"""The ticks of a loop: layers inside computed frame by frame, what is carried from one tick to the next, the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.layers.core.context import RunState
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import Stateful, Tick
from returnn_lite.network.building import compute, short_cut
from returnn_lite.rec.choice import Choice, SearchStep
from returnn_lite.rec.early_exit import ActiveSequences, may_leave
from returnn_lite.rec.inputs import counter
from returnn_lite.rec.loop_axis import tick_bound
from returnn_lite.rec.program import CHOOSE, STEP, LoopProgram, Turn
from returnn_lite.rec.tick_state import Carried, TickState
from returnn_lite.rec.varying import frames, varies
from returnn_lite.rec.whole import WholeValues
from returnn_lite.tensor import Beam, Dim, Spec, Tensor, latest_beam, to_beam
from returnn_lite.tensor.spec import vector

# The ticks, values and number of the present one -> the output of a layer. It does not hold the ticks: they would hold
# each other, and all of a step stay in memory.
Call = Callable[["Ticks", dict[Node, Tensor], int], Tensor]


@dataclass
class TickRecord:
    """What the ticks left: the `frames` of the layers that are needed afterwards, the hypotheses behind every tick.

    `beam`: the last hypotheses, `counted`: how long the sequences were, `active`: which of them left the batch.
    """

    frames: dict[Node, list[Tensor]]
    beams: list[Beam | None]
    beam: Beam | None
    counted: torch.Tensor
    active: ActiveSequences | None


class Ticks:
    """The ticks of one run of a program; `whole`: what is known over the whole axis."""

    def __init__(self, program: LoopProgram, whole: WholeValues, run: RunState) -> None:
        self.program = program
        self.whole = whole
        self.context = program.layer.context
        self.run_state = run
        self.frames: dict[Node, list[Tensor]] = {n: [] for n in program.collect}
        self.beams: list[Beam | None] = []
        self.constants: dict[Node, Any] = {}
        self.sequences: list[tuple[Node, Tensor, tuple[torch.Tensor, ...]]] = []
        self.over_axis: dict[Node, Tensor] = {}
        self.varying: list[tuple[Node, list[Tensor]]] = []
        self.offset = whole.offset
        self.bound = 0  # how many there are at most
        self.state = self._first_state()
        self.active = self._active_sequences()
        self.grows = program.grows or bool(self.varying)
        self.calls = [(turn.node, call_of(turn, program), turn.done) for turn in program.turns]

    # --- what does not change -----------------------------------------------------------------------------------------

    def _first_state(self) -> TickState:
        """The state before the first tick: what the layers inside read of outside, and what they carry."""
        make, beam = self.whole.initial, self._first_beam()
        rows = make.batch if beam is self.whole.base_beam or beam is None else beam.scores.numel()
        ended = self._ended_at_first(beam, rows)
        counted = torch.zeros(rows, dtype=torch.int32, device=make.device)
        state = TickState(Tensor(ended, vector("bool"), {}, beam), counted, beam)
        for node in self.program.reads:
            self._add_outside(node, self.whole.value(node), state.values)
        inside = self.program.all_inside
        for turn in self.program.turns:
            layer = turn.node.layer
            if turn.kind == STEP and isinstance(layer, Stateful):
                self.constants[turn.node] = self._constants(turn.node, layer, make.batch)
                known = {k: n for k, n in turn.node.refs.items() if n.previous is not None or n not in inside}
                first = layer.first_state(make, {k: self.whole.at_start(n) for k, n in known.items()})
                state.states[turn.node] = Carried(Carried(first, self.whole.base_beam).on(beam), beam)
        for node in self.program.previous:
            if node.previous is not None:
                state.values[node] = to_beam(self.whole.first_output(node.previous), beam)
        return state

    def _ended_at_first(self, beam: Beam | None, rows: int) -> torch.Tensor:
        """Which hypotheses have ended before the first tick: none, unless `end` has an `initial_output`."""
        end = self.program.end
        if end is None or not end.layer.options.initial_output:
            return torch.zeros(rows, dtype=torch.bool, device=self.whole.initial.device)
        return to_beam(self.whole.first_output(end), beam).data.expand(rows)

    def _first_beam(self) -> Beam | None:
        """The hypotheses before the first tick: those outside; for a full beam a first one, and impossible ones."""
        choices, make, outside = self.program.choices, self.whole.initial, self.whole.base_beam
        if outside is not None or not self.context.full_beam or len(choices) != 1 or not choices[0].settles:
            return outside
        size = choices[0].beam_size
        scores = torch.zeros(make.batch, size, device=make.device)
        scores[:, 1:] = -torch.inf
        return Beam(size, scores, torch.arange(make.batch, device=make.device).repeat_interleave(size))

    def _add_outside(self, node: Node, x: Tensor, values: dict[Node, Tensor]) -> None:
        dim = self.program.dim
        foreign = next((d for d in x.spec.loop if d != dim), None)
        if foreign is not None:
            text = f"the length of {node.name!r} ({x.size(foreign)}) differs from the length of the loop"
            hint = "give both one time axis (`reinterpret_data` with `size_base`)"
            raise self.program.layer.error(f"{text} ({self.whole.size}); {hint}")
        if varies(x, dim):
            self.varying.append((node, frames(x, dim)))
            return
        if dim not in x.spec.loop:
            values[node] = x
            return
        template = Tensor(x.data[:0], frame_spec(x.spec.in_loop(dim), dim), x.lengths, x.beam)
        self.sequences.append((node, template, x.data.unbind(x.spec.dims.index(dim))))
        self.over_axis[node] = x

    def _constants(self, node: Node, layer: Stateful, batch: int) -> Any:  # Any: `LoopConstants`
        """What a layer uses at every tick."""
        constants = layer.begin_loop(batch)
        if self.context.beams:
            return constants
        known = [self.over_axis.get(source) for source in node.sources]
        return layer.look_ahead(constants, known, [source.spec for source in node.sources], self.program.dim)

    def _active_sequences(self) -> ActiveSequences | None:
        """For a search whose sequences may leave its batch; None if they may not."""
        outside = self.whole.base_beam is not None
        if outside or self.context.keeps_batch or self.program.layer.training or not may_leave(self.program):
            return None
        return ActiveSequences(self.whole.initial.batch, self.whole.initial.device)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> TickRecord:
        """All ticks: as many as known, or until every sequence has ended or the bound is reached."""
        compiled = self.program.compiled
        if compiled is None:
            self._all_ticks(turn_all)
        else:
            with compiled.running() as turn:
                self._all_ticks(turn)
        return TickRecord(self.frames, self.beams, self.state.beam, self.state.counted, self.active)

    def _all_ticks(self, turn: Callable[..., None]) -> None:
        program, run = self.program, self.run_state
        known = self.whole.size
        self.bound = tick_bound(program.layer, program.options, self.whole.outer) if known is None else known
        outer = (run.tick, run.ended, run.values)
        run.values = [self.state.values, self.whole.values, *run.values]
        run.ended = self._ended_flags
        for tick in range(self.bound):
            run.tick = tick
            self._tick(turn, tick)
            if program.end is not None:
                self.state.count(self.state.values[program.end], include_eos=program.options.include_eos)
                if not self._goes_on(tick):
                    break
            else:
                self.beams.append(self.state.beam)
        run.tick, run.ended, run.values = outer

    def _goes_on(self, tick: int) -> bool:
        """Whether any sequence goes on; those that do not may leave the batch."""
        if self.active is None:
            goes_on = not bool(self.state.ended.data.all())
        else:
            self.state, goes_on = self.active.after(self.state, tick)
            self.run_state.values[0] = self.state.values
        self.beams.append(self.state.beam)
        return goes_on

    def _tick(self, turn: Callable[..., None], tick: int) -> None:
        """One tick: frames in, every layer in order, what is carried on to the next one."""
        state = self.state
        values = state.values
        for node, template, whole in self.sequences:
            values[node] = Tensor(whole[tick], template.spec, template.lengths, template.beam)
        for node, made in self.varying:
            values[node] = made[tick]
        for node in self.program.counters:
            values[node] = counter(tick + self.offset, self.whole.initial.device)
        turn(self, values, tick)
        for node, collected in self.frames.items():
            collected.append(values[node])
        for node in self.program.previous:
            if node.previous is not None:
                values[node] = to_beam(values[node.previous], state.beam)
                if self.grows:
                    _forget_lengths(values[node])
        if state.beam is not None:
            state.states = {n: Carried(c.on(state.beam), state.beam) for n, c in state.states.items()}

    def choose(self, node: Node, layer: Choice, values: dict[Node, Tensor], tick: int) -> Tensor:
        """A search choice: from here on there are other hypotheses."""
        beam = self.state.beam
        over = self._over_on(beam, tick, 0) if "target" in node.refs else None
        step = SearchStep(tick, beam, self._ended_on(beam, tick), over, self.program.width)
        refs = {k: values[n] for k, n in node.refs.items()}
        out = layer.choose([values[n] for n in node.sources], refs, step)
        self.state.beam = out.beam
        return out

    def step(self, turn: Turn, layer: Stateful, values: dict[Node, Tensor], number: int) -> Tensor:
        """A layer with a state of its own."""
        node, states = turn.node, self.state.states
        sources = [values[n] for n in node.sources]
        refs = {k: values[n] for k, n in turn.refs.items()}
        beam = states[node].beam
        if self.context.beams:
            beam = latest_beam([*sources, *refs.values()]) or beam
        state = states[node].on(beam)
        tick = Tick(number, {k: to_beam(x, beam) for k, x in refs.items()}, lambda: self._ended_on(beam, number))
        out, new = layer.step(self.constants[node], [to_beam(x, beam) for x in sources], state, tick)
        states[node] = Carried(new, beam)
        if out.beam is not beam and out.spec.batch is not None:  # what it reads has no batch axis, its state has
            out.beam = beam
        for step in node.after:
            out = step(out, sources)
        return out

    # --- the ends -----------------------------------------------------------------------------------------------------

    def _ended_on(self, beam: Beam | None, tick: int) -> torch.Tensor | None:
        """Which hypotheses have ended before this tick; None if none can have."""
        if self.whole.size is None:
            return to_beam(self.state.ended, beam).data
        return self._over_on(beam, tick, 0 if self.program.options.include_eos else 1)

    def _ended_flags(self, beam: Beam | None) -> torch.Tensor:
        """Which hypotheses (of `beam`, else of the present one) have ended before this tick, bool (B * K,)."""
        beam = self.state.beam if beam is None else beam
        ended = self._ended_on(beam, self.run_state.tick or 0)
        make = self.whole.initial
        count = make.batch * (beam.size if beam is not None else 1)
        return torch.zeros(count, dtype=torch.bool, device=make.device) if ended is None else ended

    def _over_on(self, beam: Beam | None, tick: int, more: int) -> torch.Tensor | None:
        """Which sequences are over since `more` ticks, bool (B,); None if their lengths are not known."""
        lengths = self.whole.lengths
        if lengths is None or self.whole.size is None:
            return None
        outer = self.whole.base_beam
        if outer is None and beam is not None:
            return tick >= lengths.tile(beam.size).values + more
        return tick >= Carried({"n": lengths.values}, outer).on(beam)["n"] + more


def turn_all(ticks: Ticks, values: dict[Node, Tensor], tick: int) -> None:
    """Computes every layer inside, in order, and forgets what is not read again."""
    for node, call, done in ticks.calls:
        values[node] = compute(node, values) if call is None else call(ticks, values, tick)
        for read in done:
            del values[read]


def _forget_lengths(x: Tensor) -> None:
    """Drops the lengths of axes that grow with the ticks, but for its own axes: at the next tick they are others."""
    x.lengths = {d: n for d, n in x.lengths.items() if n.dims or d in x.spec.dims}


def frame_spec(spec: Spec, dim: Dim) -> Spec:
    """The Spec of one frame: the axis is no loop axis any more."""
    loop = spec.loop - {dim}
    return Spec(spec.dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature, loop=loop)


def call_of(turn: Turn, program: LoopProgram) -> Call | None:
    """How a layer is computed at each tick; None: by `compute`."""
    layer, node = turn.node.layer, turn.node
    if turn.kind == CHOOSE and isinstance(layer, Choice):
        return lambda ticks, values, tick: ticks.choose(node, layer, values, tick)
    if turn.kind == STEP and isinstance(layer, Stateful):
        return lambda ticks, values, tick: ticks.step(turn, layer, values, tick)
    return short_cut(node) if program.compiled is None else None
