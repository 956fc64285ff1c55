"""`masked_computation`: a layer that runs on the frames of a mask only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick, ticking
from returnn_lite.network.building import compute, infer
from returnn_lite.network.construct import Net
from returnn_lite.network.unit_net import UnitInput, UnitNet
from returnn_lite.rec.compress import Frames, renamed
from returnn_lite.rec.fixpoint import infer_all
from returnn_lite.rec.initial import Initial, build_initial, first_output, link_initial
from returnn_lite.rec.inputs import link_previous
from returnn_lite.tensor import Dim, Spec, Tensor, latest_beam
from returnn_lite.tensor.align import merged_lengths


@layer("masked_computation")
class MaskedComputation(Stateful):
    """The layer dict `unit` on those frames of the source where `mask` is True.

    Shape: (B, T, F), mask (B, T) -> (B, T', n_out), T' the number of chosen frames. In a loop, mask (B,): where it is
    False the last output and the states of the unit stay as they were; (B, F) -> (B, n_out). The unit reads the source
    as "data", and other layers by name, whose frames are chosen alike. `masked_from`: a layer whose frames are already
    chosen, in place of source and mask. `in_spatial_dim`, `out_spatial_dim`: the axis of the frames before and after.
    """

    checks_n_out = False
    nodes: list[Node]  # what runs for the unit, in this order
    unit_node: Node
    _builder: UnitNet | None = None

    def __init__(
        self,
        *,
        unit: Mapping[str, Any],
        mask: LayerRef | None = None,
        masked_from: LayerRef | None = None,
        in_spatial_dim: Dim | None = None,
        out_spatial_dim: Dim | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(unit, Mapping) or "class" not in unit:
            raise self.error(f"`unit` must be the dict of a layer, but is {unit!r} instead")
        self.unit = unit
        self.mask = mask
        self.masked_from = masked_from
        self.in_spatial_dim = in_spatial_dim
        self.out_spatial_dim = out_spatial_dim
        self.over_time = True
        self.input_specs: dict[str, Spec | None] = {}

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """With `masked_from` there is nothing to mask."""
        if description.get("masked_from"):
            return {**description, "from": description["masked_from"], "masked_from": None, "mask": None}
        if not description.get("mask"):
            path = net.layer_path(description["#name"])
            raise ConfigError(path, "`masked_computation` needs the option 'mask'")
        return description

    # --- construction -------------------------------------------------------------------------------------------------

    async def link(self, net: Net, node: Node) -> None:
        """Opens the net of the unit and links it."""
        inner = self._builder = UnitNet(self, net, self.unit, self.input_specs)
        self.unit_node = await inner.ask(self.name)
        while inner.waiting:
            previous, of_net, name = inner.waiting.popleft()
            link_previous(previous, await of_net.ask(name), of_net.layer_path(name), net.context)
        for inner_node in list(inner.order):
            await link_initial(inner_node, inner)
        self.nodes = inner.order
        node.refs.update({f"unit:{name}": outer for name, outer in inner.captured.items()})

    def frames_dim(self, mask: Spec) -> Dim | None:
        """The axis whose frames are chosen; None in a loop."""
        if isinstance(self.in_spatial_dim, Dim) and self.in_spatial_dim in mask.dims:
            return self.in_spatial_dim
        return mask.time_dim

    @property
    def masked_dim(self) -> Dim:
        """The axis of the chosen frames."""
        if isinstance(self.out_spatial_dim, Dim):
            return self.out_spatial_dim
        return self.dim("masked", None, kind="spatial")

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """That of the unit, for the chosen frames."""
        mask = refs.get("mask")
        dim = self.frames_dim(mask) if mask is not None else None
        self.over_time = dim is not None or self.mask is None
        inputs = {name.removeprefix("unit:"): spec for name, spec in refs.items() if name.startswith("unit:")}
        inputs["data"] = self._joined_spec(sources) if sources else None
        self.input_specs.update({n: self._seen(s, dim) for n, s in inputs.items()})
        if not self._previous:
            for node in self.nodes:
                infer(node)
        elif self.over_time:
            raise self.error('"prev:" inside of the unit exists only in a loop, with a mask (B,)')
        elif all(spec is not None for spec in inputs.values()):
            infer_all(self.nodes)
        return self.unit_node.spec

    @cached_property
    def _previous(self) -> dict[Node, str]:
        """The "prev:" nodes inside, and the parts of the state that they read."""
        return {node: f"prev:{i}" for i, node in enumerate(self.nodes) if node.previous is not None}

    @property
    def stays_in_loop(self) -> str:
        """A unit whose layers read their last outputs runs tick by tick."""
        return "its unit reads the previous tick" if self._previous else ""

    def _seen(self, spec: Spec | None, dim: Dim | None) -> Spec | None:
        if spec is None or dim is None:
            return spec
        if spec.time is not None and dim not in spec.dims:
            raise self.error(f"mask and source must have the same time axis, but {dim} is not in {spec}")
        return renamed(spec, dim, self.masked_dim)

    async def building(self) -> None:
        """The parameters of the unit; they are those of a layer of this name."""
        builder = self._builder
        if builder is not None:
            for node in self.nodes:
                await builder.complete(node)
                build_initial(node)

    def freeze(self) -> None:
        """The net of the unit is built."""
        self._builder = None

    # --- all frames at once -------------------------------------------------------------------------------------------

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The unit on the chosen frames."""
        inputs = self._inputs(sources[0] if sources else None, refs)
        if self.mask is None:
            return self._unit(inputs, None)
        mask = refs["mask"]
        dim = self.frames_dim(mask.spec)
        if dim is None:
            raise self.error(f"outside of loops the mask needs a time axis, but is {mask.spec}")
        frames = Frames(mask, dim, self.masked_dim)
        return self._unit({n: frames.compressed(x) for n, x in inputs.items()}, None)

    @staticmethod
    def _inputs(x: Tensor | None, refs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = {name.removeprefix("unit:"): y for name, y in refs.items() if name.startswith("unit:")}
        return inputs if x is None else {**inputs, "data": x}

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether it is one tick of the loop around it: the mask has no time axis."""
        return not self.over_time

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The unit on the chosen ticks, then back to all ticks."""
        x = self.run_input(sources)
        mask = refs["mask"]
        if dim not in mask.spec.loop:
            mask = _repeated(mask, dim, x)
        frames = Frames(mask, dim, self.masked_dim)
        inputs = {n: frames.compressed(y) for n, y in self._inputs(x, refs).items()}
        out = self._unit(inputs, self.masked_dim)
        make = Initial(mask.data.shape[mask.spec.batch or 0], mask.device, mask.lengths)
        first = first_output(make, self.unit_node, lambda n: self._outer(n, refs))
        at = out.spec.dims.index(self.masked_dim) if self.masked_dim in out.spec.dims else 0
        return frames.spread(out, first.data.unsqueeze(at))

    def _unit(self, inputs: Mapping[str, Tensor], ticks: Dim | None) -> Tensor:
        """Runs the unit; `ticks`: its frames are ticks of a loop."""
        values: dict[Node, Tensor] = {}
        for node in self.nodes:
            stateful = ticking(node) if ticks is not None else None
            if isinstance(node.layer, UnitInput):
                values[node] = inputs[node.layer.key]
            elif ticks is not None and stateful is not None:
                refs = {k: values[n] for k, n in node.refs.items()}
                values[node] = stateful.over(ticks, [values[n] for n in node.sources], refs)
            else:
                values[node] = compute(node, values)
        return values[self.unit_node]

    @staticmethod
    def _outer(node: Node, refs: Mapping[str, Tensor]) -> Tensor:
        """What the unit reads from outside."""
        inner = node.layer
        if not isinstance(inner, UnitInput) or f"unit:{inner.key}" not in refs:
            raise inner.error("an initial value cannot depend on the tick")
        return refs[f"unit:{inner.key}"]

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def begin_loop(self, batch: int) -> LoopConstants:
        """What is constant over one run, of all layers of the unit with a state."""
        stateful = ((i, node, ticking(node)) for i, node in enumerate(self.nodes))
        return {n: (f"{i}/", inner.begin_loop(batch)) for i, n, inner in stateful if inner is not None}

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """The states of the unit, and its output before the first tick."""
        state: State = {}
        for i, node in enumerate(self.nodes):
            inner = ticking(node)
            if inner is not None:
                given = {k: self._outer(n, refs) for k, n in node.refs.items() if k.startswith("initial_state/")}
                state |= {f"{i}/{k}": v for k, v in inner.first_state(make, given).items()}
        state["output"] = first_output(make, self.unit_node, lambda n: self._outer(n, refs)).data
        for node, key in self._previous.items():
            if node.previous is not None:
                first = first_output(make, node.previous, lambda n: self._outer(n, refs))
                state[key] = first.data.movedim(first.spec.batch or 0, 0)
        return state

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """That of the unit."""
        if state is None:
            raise self.error("the initial output is that of the unit")
        return Tensor(state["output"], spec, make.lengths)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """One tick: new output and states where the mask is True, the old ones elsewhere."""
        keep = tick.refs["mask"].data
        inputs = {n: _legal(x, keep) for n, x in self._inputs(self.run_input(sources), tick.refs).items()}
        values: dict[Node, Tensor] = {}
        new: State = {}
        for node in self.nodes:
            inner = node.layer
            if isinstance(inner, UnitInput):
                values[node] = inputs[inner.key]
            elif node.previous is not None:
                values[node] = self._last_output(node.previous, state[self._previous[node]], inputs)
            elif isinstance(inner, Stateful) and node in constants:
                prefix, constant = constants[node]
                old = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                refs = {k: values[n] for k, n in node.refs.items() if not k.startswith("initial_state/")}
                now = Tick(tick.number, refs, tick.ended)
                values[node], changed = inner.step(constant, [values[n] for n in node.sources], old, now)
                new |= {prefix + k: v for k, v in inner.merged_state(keep, changed, old).items()}
            else:
                values[node] = compute(node, values)
        out = values[self.unit_node]
        last = {"output": out.data}
        for node, key in self._previous.items():
            if node.previous is not None:
                x = values[node.previous]
                last[key] = x.data.movedim(x.spec.batch or 0, 0)
        new |= self.merged_state(keep, last, state)
        return out.with_data(new["output"]), new

    @staticmethod
    def _last_output(of: Node, data: torch.Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """What "prev:" reads inside of the unit."""
        if of.spec is None:
            raise of.layer.error("the axes of this layer are not known")
        read = [*inputs.values()]
        return Tensor(data.movedim(0, of.spec.batch or 0), of.spec, merged_lengths(read), latest_beam(read))


def _legal(x: Tensor, keep: torch.Tensor) -> Tensor:
    """Labels that do not count may lie outside of the unit's classes (blank): label 0 in their place."""
    if not x.spec.sparse or x.spec.batch is None:
        return x
    shape = [1] * x.spec.rank
    shape[x.spec.batch] = -1
    return x.with_data(x.data.masked_fill(~keep.reshape(shape), 0))


def _repeated(mask: Tensor, dim: Dim, like: Tensor) -> Tensor:
    """A mask that is the same at every tick, for all ticks."""
    lengths = {**mask.lengths, **({dim: like.lengths[dim]} if dim in like.lengths else {})}
    data = mask.data.unsqueeze(0).expand((like.size(dim), *mask.data.shape))
    return Tensor(data, mask.spec.with_loop(dim), lengths, mask.beam)
