"""One step of a decoder as a function of tensors: a search outside of the net hands it labels and gets log scores.

A tick of a loop with a `choice` falls into two halves: what leads to the scores of the labels, and what is computed of
the label that is chosen. A step is the second half of one tick and the first half of the next one: labels go in, the
log scores of the labels behind them come out. Each hypothesis is a row (a sequence of its own).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.context import RunState
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import Stateful
from returnn_lite.network.building import compute
from returnn_lite.network.network import Network
from returnn_lite.rec.choice import Choice
from returnn_lite.rec.choice_scores import log_scores
from returnn_lite.rec.initial import Initial
from returnn_lite.rec.loop import values_before
from returnn_lite.rec.loop_layer import RecLoop
from returnn_lite.rec.program import CHOOSE, STEP, LoopProgram
from returnn_lite.rec.tick_state import Carried, TickState
from returnn_lite.rec.ticks import Ticks, frame_spec
from returnn_lite.rec.whole import WholeValues
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.spec import scalar, vector

Arrays = dict[str, torch.Tensor]
LOG_PROBS, ENDED, LABELS, TICK, TICKS = "log_probs", "ended", "labels", "tick", "ticks"


@dataclass
class Slot:
    """A tensor that a step reads: its axes, and the node (and key of its state) that it belongs to.

    `lengths`: the names of the lengths of its axes.
    """

    node: Node
    key: str
    template: Tensor
    lengths: dict[Dim, str] = field(default_factory=dict)


class StepFunction:
    """The loop `name` of a network that searches; `start` must be called before `step`.

    `fixed`: what each step reads of the layers outside, `frames`: of which it reads the frame of its tick, `state`:
    what goes from step to step; by name. `counts`: whether a step reads the number of its tick. ConfigError for a loop
    of which no such function can be made.
    """

    def __init__(self, net: Network, name: str) -> None:
        self.net, self.node = net, net.program.names[name]
        layer = self.node.layer
        if not isinstance(layer, RecLoop):
            text = f"layer {name!r} must be a loop (`rec` with a dict as `unit`), but is of class {layer.class_name!r}"
            raise ConfigError("export_loop", text)
        self.loop, self.program = layer, layer.program
        self.at, self.choice = self._find_choice()
        self.fixed: dict[str, Slot] = {}
        self.state: dict[str, Slot] = {}
        self.frames: dict[str, Slot] = {}
        self.constants: dict[Node, Tensor] = {}  # what the ticks read of outside besides
        self.lengths: dict[Dim, str] = {}
        self.counts = bool(self.program.counters)

    def _find_choice(self) -> tuple[int, Choice]:
        """The choice, and its place among the turns."""
        found = [i for i, turn in enumerate(self.program.turns) if turn.kind == CHOOSE]
        if len(found) != 1:
            text = f"must make one search choice, but makes {len(found)}"
            raise ConfigError(self.loop.path, f"{text}; only such a loop has a step function")
        layer = self.program.turns[found[0]].node.layer
        if not isinstance(layer, Choice) or len(self.program.turns[found[0]].node.sources) != 1:
            raise ConfigError(layer.path, "must choose by one source, so that its loop has a step function")
        if layer.input_type == "regression":
            raise ConfigError(layer.path, "must choose labels, so that its loop has a step function")
        return found[0], layer

    @property
    def label_spec(self) -> Spec:
        """The axes of the labels."""
        spec = self.program.turns[self.at].node.spec
        if spec is None:
            raise self.loop.error("the classes of the target are not known")
        return spec

    # --- the start ----------------------------------------------------------------------------------------------------

    def start(self, data: Arrays, lengths: Arrays) -> Arrays:
        """The log scores of the first label (B, V), the state behind them, and what all steps read besides."""
        with self.net.running_until(self.node, data, lengths) as (values, run):
            sources = [values[n] for n in self.node.sources]
            refs = {k: values[n] for k, n in self.node.refs.items()}
            outer = {**refs, **({"source": self.loop.run_input(sources)} if sources else {})}
            whole = values_before(self.program, outer, run)
            ticks = HalfTicks(self.program, whole, run, self.at)
            for node, _ in ticks.varying:
                raise node.layer.error("is read in frames of unlike sizes by the loop, which thus has no step function")
            frames = {node: self._frames(node, whole) for node, _, _ in ticks.sequences}
            self.frames = dict(self._frame_slots(frames))
            first = {name: x[:, 0] for name, (_, x) in zip(self.frames, frames.values(), strict=True)}
            self._set_frames(ticks.state, first)
            scores = self._scores(ticks, 0)
        self.fixed, self.lengths = self._fixed(whole), {}
        self.state = dict(self._state_slots(ticks.state))
        found = {LOG_PROBS: scores}
        if whole.lengths is not None:
            found[TICKS] = whole.lengths.values
        found |= {name: x for name, (_, x) in zip(self.frames, frames.values(), strict=True)}
        for name, slot in self.fixed.items():
            found[name] = slot.template.data
            for dim in slot.template.spec.dynamic_dims:
                slot.lengths[dim] = self._lengths_name(dim, name)
                found[slot.lengths[dim]] = slot.template.length(dim).values
        for slot in self.state.values():
            slot.lengths = {d: self.lengths[d] for d in slot.template.spec.dynamic_dims if d in self.lengths}
        return {**found, **self._state_of(ticks.state)}

    def _frames(self, node: Node, whole: WholeValues) -> tuple[Tensor, torch.Tensor]:
        """What a tick reads of a layer, as its axes, and all frames of it (B, T, …)."""
        x = whole.value(node).batch_front()
        at = x.spec.dims.index(self.program.dim)
        if at == 0:
            x = x.permuted((1, 0, *range(2, x.spec.rank)))
            at = 1
        if at != 1 or x.spec.batch != 0:
            raise node.layer.error(f"is read frame by frame, but is {x.spec}; the loop has no step function")
        template = x.data.select(1, 0)
        return Tensor(template, frame_spec(x.spec.in_loop(self.program.dim), self.program.dim), x.lengths), x.data

    @staticmethod
    def _frame_slots(frames: Mapping[Node, tuple[Tensor, torch.Tensor]]) -> Iterator[tuple[str, Slot]]:
        names: set[str] = set()
        for node, (template, _) in frames.items():
            yield _fresh(f"frame_{node.name}", names), Slot(node, "", template)

    def _set_frames(self, state: TickState, frames: Arrays) -> None:
        for name, slot in self.frames.items():
            state.values[slot.node] = slot.template.with_data(frames[name])

    def _fixed(self, whole: WholeValues) -> dict[str, Slot]:
        """What the ticks read of outside, but for constants."""
        found: dict[str, Slot] = {}
        for node in self.program.reads:
            x = whole.value(node).batch_front()
            if any(slot.node is node for slot in self.frames.values()):
                continue
            if x.spec.batch is not None or x.spec.dynamic_dims:
                found[_fresh(f"given_{node.name}", found)] = Slot(node, "", x)
            else:
                self.constants[node] = x
        return found

    def _lengths_name(self, dim: Dim, name: str) -> str:
        return self.lengths.setdefault(dim, f"{name}_lengths")

    def _state_slots(self, state: TickState) -> Iterator[tuple[str, Slot]]:
        """What the next tick reads of this one."""
        names: set[str] = set()
        for node in self._kept:
            name = _fresh(f"state_{node.name}", names)
            yield name, Slot(node, "", state.values[node].batch_front())
        for node, carried in state.states.items():
            for key, tensor in carried.tensors.items():
                name = _fresh(f"state_{node.name}_{key}", names)
                yield name, Slot(node, key, Tensor(tensor, vector(), {}))

    @property
    def _kept(self) -> list[Node]:
        """The nodes whose values the second half of a tick reads, or the next tick as "prev:"."""
        later = self.program.turns[self.at :]
        made = {turn.node for turn in later}
        read = {n: None for turn in later for n in turn.node.inputs if turn.kind != CHOOSE}
        read.update(dict.fromkeys(n.previous for n in self.program.previous if n.previous is not None))
        frames = {slot.node for slot in self.frames.values()}
        inside = {*self.program.all_inside, *self.program.previous, *frames}
        return [n for n in read if n not in made and n in inside]

    def _state_of(self, state: TickState) -> Arrays:
        """The state by name."""
        found = {}
        for name, slot in self.state.items():
            if slot.key:
                found[name] = state.states[slot.node].tensors[slot.key]
            else:
                found[name] = state.values[slot.node].batch_front().data
        return found

    # --- a step -------------------------------------------------------------------------------------------------------

    def step(self, given: Arrays) -> Arrays:
        """The "log_probs" (N, V) behind "labels" int32 (N,), which of these "ended" bool (N,), and the new state.

        `given`: labels, the state, what is fixed, the frame of the new tick, and the number of labels so far ("tick")
        if the step `counts`. Without a layer `end` there is no "ended".
        """
        labels = given[LABELS]
        run = RunState(batch=labels.shape[0])
        fixed = {slot.node: self._tensor(name, slot, given) for name, slot in self.fixed.items()}
        whole = GivenValues(self.program, {**self.constants, **fixed}, labels)
        before, self.net.context.run = self.net.context.run, run
        try:
            ticks = HalfTicks(self.program, whole, run, self.at)
            ticks.state = self._tick_state(given, ticks.state)
            number = int(given[TICK]) if TICK in given else 1
            ended = ticks.second_half(Tensor(labels, self.label_spec, {}), number - 1)
            self._set_frames(ticks.state, given)
            found = {LOG_PROBS: self._scores(ticks, number, given.get(TICK))}
            found |= {ENDED: ended} if ended is not None else {}
        finally:
            self.net.context.run = before
        return {**found, **self._state_of(ticks.state)}

    def _tick_state(self, given: Arrays, first: TickState) -> TickState:
        """The state before the second half of a tick."""
        for name, slot in self.state.items():
            if slot.key:
                first.states.setdefault(slot.node, Carried({})).tensors[slot.key] = given[name]
            else:
                first.values[slot.node] = self._tensor(name, slot, given)
        return first

    def _tensor(self, name: str, slot: Slot, given: Arrays) -> Tensor:
        """A tensor that was handed in, with its axes."""
        data, spec = given[name], slot.template.spec
        sizes = {d: data.shape[spec.dims.index(d)] for d in spec.dynamic_dims}
        lengths = {d: Lengths(given[label], sizes[d]) for d, label in slot.lengths.items()}
        return Tensor(data, spec, lengths)

    def _scores(self, ticks: HalfTicks, number: int, tick: torch.Tensor | None = None) -> torch.Tensor:
        """The log scores (N, V) of all labels at a tick."""
        ticks.first_half(number, tick)
        source = ticks.state.values[self.program.turns[self.at].node.sources[0]]
        return log_scores(source, self.choice.input_type, 1, self.choice.path)[:, 0]


class GivenValues(WholeValues):
    """What the ticks read of outside, as it was handed to a step; rows without any initial values that count."""

    def __init__(self, program: LoopProgram, values: dict[Node, Tensor], labels: torch.Tensor) -> None:
        self.program, self.layer, self.dim = program, program.layer, program.dim
        self.outer: Mapping[str, Tensor] = {}
        self.values = values
        self.size, self.lengths, self.base_beam = None, None, None
        lengths = {d: n for x in values.values() for d, n in x.lengths.items()}
        self.initial = Initial(labels.shape[0], labels.device, lengths)


class HalfTicks(Ticks):
    """Ticks in two halves: what comes before the choice (turn `at`), what comes after it."""

    def __init__(self, program: LoopProgram, whole: WholeValues, run: RunState, at: int) -> None:
        self.at = at
        super().__init__(program, whole, run)

    def _first_state(self) -> TickState:
        if not isinstance(self.whole, GivenValues):
            return super()._first_state()
        make = self.whole.initial
        ended = torch.zeros(make.batch, dtype=torch.bool, device=make.device)
        state = TickState(Tensor(ended, vector("bool"), {}), torch.zeros(make.batch, dtype=torch.int32), None)
        state.values.update(self.whole.values)
        for turn in self.program.turns:
            if turn.kind == STEP and isinstance(turn.node.layer, Stateful):
                self.constants[turn.node] = turn.node.layer.begin_loop(make.batch)
                state.states[turn.node] = Carried({})
        return state

    def first_half(self, number: int, tick: torch.Tensor | None = None) -> None:
        """What leads to the scores at a tick; `tick`: its number as a tensor."""
        for node in self.program.counters:
            count = torch.full((), number, dtype=torch.int32) if tick is None else tick
            self.state.values[node] = Tensor(count + self.offset, scalar("int32"), {})
        self._turns(0, self.at, number)

    def second_half(self, labels: Tensor, number: int) -> torch.Tensor | None:
        """What is computed of the labels; which of the sequences have ended with them, None if no layer tells."""
        values = self.state.values
        values[self.program.turns[self.at].node] = labels
        self._turns(self.at + 1, len(self.calls), number)
        for node in self.program.previous:
            if node.previous is not None:
                values[node] = values[node.previous]
        return values[self.program.end].data if self.program.end is not None else None

    def _turns(self, first: int, last: int, number: int) -> None:
        run, values = self.run_state, self.state.values
        before, run.values = run.values, [values, self.whole.values, *run.values]
        run.tick, run.ended = number, self._ended_flags
        for node, call, _ in self.calls[first:last]:
            values[node] = compute(node, values) if call is None else call(self, values, number)
        run.tick, run.ended, run.values = None, None, before


def _fresh(wish: str, taken: set[str] | dict[str, Slot]) -> str:
    """A name for Python code that is not taken yet."""
    name = base = re.sub(r"\W+", "_", wish.replace("prev:", "prev_").replace("base:", "")).strip("_")
    count = 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    if isinstance(taken, set):
        taken.add(name)
    return name
