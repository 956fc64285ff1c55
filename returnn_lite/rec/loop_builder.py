"""Builds a loop: links the layers of its unit, finds its axis and their Specs, decides where they run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from returnn_lite.errors import did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import ticking
from returnn_lite.network.compiling.options import compile_options
from returnn_lite.network.construct import Net
from returnn_lite.network.walk import collect, start_points
from returnn_lite.rec.choice import Choice
from returnn_lite.rec.compiled import CompiledTick
from returnn_lite.rec.fixpoint import infer_all
from returnn_lite.rec.initial import build_initial, link_initial
from returnn_lite.rec.inputs import LoopInputs
from returnn_lite.rec.loop import LAST
from returnn_lite.rec.loop_axis import LoopAxis
from returnn_lite.rec.loop_graph import LoopGraph, loop_losses
from returnn_lite.rec.loop_net import LoopNet
from returnn_lite.rec.loop_options import LoopOptions
from returnn_lite.rec.program import LoopProgram, make_program
from returnn_lite.rec.ticks import turn_all
from returnn_lite.tensor import Dim, Spec, single_step_dim


class LoopBuilder:
    """What builds the loop of the rec layer `layer`, in the net `net`; what it has built is a `LoopProgram`."""

    def __init__(self, layer: Layer, options: LoopOptions, net: Net, *, has_source: bool) -> None:
        self.layer = layer
        self.options = options
        self.outer = net
        self.inputs = LoopInputs(layer.path, has_source=has_source)
        self.inner = LoopNet(layer, net, options.unit, self.inputs)
        self.axis = LoopAxis(layer, options, self.inputs)
        self.read_outside: set[str] = set()  # inner layers that the net outside reads
        self.graph: LoopGraph

    @task
    async def link(self, source: Node | None) -> None:
        """Links all layers of the unit that output, losses and output layers need."""
        inner = self.inner
        self.inputs.specs["source"] = None if source is None else source.spec
        await collect(self._start_points(), inner)
        await inner.link_previous()
        await self._complete()
        for name in inner.loss_targets():
            net, own = inner.within(name)
            await net.ask(own)
        for name, *_ in loop_losses(inner):
            await inner.ask(name)
        for inner_node in list(inner.order):
            await link_initial(inner_node, inner)
        await inner.link_previous()
        self.graph = LoopGraph(inner)
        await self.axis.capture(self.outer, source)

    def _start_points(self) -> list[str]:
        unit = self.options.unit
        found = ["output", *(n for n in start_points(unit, self.layer.context) if n != "output")]
        found += [n for n, d in unit.items() if isinstance(d, Mapping) and d.get("need_last") and n not in found]
        return [*found, "end"] if self.axis.may_end and "end" in unit and "end" not in found else found

    @task
    async def _complete(self) -> None:
        """Links what sub-networks inside have of their own: losses, output layers."""
        waiting: deque[Net] = deque(self.inner.subnets.values())
        while waiting:
            subnet = waiting.popleft()
            if not subnet.is_loop:
                await collect(start_points(subnet.descriptions, self.layer.context), subnet)
                await self.inner.link_previous()
                waiting += subnet.subnets.values()

    def infer(self, specs: Mapping[str, Spec | None]) -> Spec | None:
        """Infers the Specs of all inner layers from those outside. Returns that of the output, as seen from there."""
        self.inputs.specs = {**specs}
        if any(s is None for s in specs.values()):
            return None
        self.axis.find(self.inner)
        infer_all(self.inner.order)
        return self.outside(self.inner.nodes["output"])

    def outside(self, node: Node) -> Spec | None:
        """The Spec of an inner layer with the loop axis in front."""
        dim = self.inputs.dim
        if node.spec is None or dim is None:
            return None
        return node.spec.with_loop(dim).leave_loop(dim).roles(time=0)

    @task
    async def build(self) -> None:
        """The parameters of all inner layers."""
        for node in self.inner.order:
            await self.inner.complete(node)
            build_initial(node)

    def _check_axes(self) -> None:
        """Raises ConfigError for a layer that runs over an axis which neither its source nor the loop has."""
        for node in self.inner.order:
            axis = getattr(node.layer, "axis", None)
            if not isinstance(axis, Dim) or axis in (single_step_dim, self.inputs.dim) or ticking(node) is None:
                continue
            if not any(axis in source.spec.dims for source in node.sources if source.spec is not None):
                text = f"`axis` must be one of the source, or {self.inputs.dim} of the loop, but is {axis} instead"
                raise node.layer.error(text)

    def make_plan(self) -> None:
        """Decides where the inner layers run."""
        self._check_axes()
        known, context = self.inputs.known_length, self.layer.context
        end = self.inner.nodes.get("end")
        if end is not None and end.spec is not None and not known:
            if end.spec.dtype != "bool" or any(not d.is_batch for d in end.spec.dims):
                raise end.layer.error(f"`end` must be bool (B,), but is {end.spec} instead")
        optimize = self.options.optimize
        if optimize is None:
            optimize = bool(context.config.bool("optimize_move_layers_out", True))
        self.graph.make_plan(known_length=known, optimize=optimize)
        if context.log.verbosity >= 4:
            plan = self.graph.plan.text()
            context.log.v4(f"Rec layer {self.layer.name!r} (search {context.search}):\n{plan}")

    # --- what the net outside asks for --------------------------------------------------------------------------------

    def loss_nodes(self) -> Iterator[tuple[str, Net, Node]]:
        """(label, net, node) of the inner layers with a loss; hypotheses of a search have no frames to compare with."""
        return iter(()) if self.beam_size() is not None else self.graph.with_loss()

    def part_spec(self, part: str) -> Spec | None:
        """The Spec of an inner layer, seen from outside. Raises ConfigError for one that exists only tick by tick."""
        graph, label = self.graph, part.removeprefix(LAST)
        self.read_outside.add(label)
        node = graph.nodes.get(label)
        if node is None:
            needed, hint = ", ".join(graph.nodes), did_you_mean(label, graph.nodes)
            raise self.layer.error(f"no layer {label!r} is needed in this loop; needed are: {needed}{hint}")
        if part.startswith(LAST):
            if not node.layer.options.need_last:
                raise node.layer.error('to read its last frame from outside, set "need_last": True on it')
            return node.spec
        if graph.is_inside(part) and part not in graph.accumulated():
            text = 'runs inside the loop; to read it from outside, set "is_output_layer": True on it'
            raise self.layer.error(f"layer {part!r} {text}")
        return self.outside(node)

    def beam_size(self) -> int | None:
        """The beam size of the output in search: that of the last choice that searches; None without one."""
        layers = (n.layer for n in self.inner.order)
        sizes = [layer.beam_size for layer in layers if isinstance(layer, Choice) and layer.searches]
        return sizes[-1] if sizes else None

    def program(self) -> LoopProgram:
        """What was built, when all that reads it is."""
        wanted = self.graph.accumulated()
        if self.beam_size() is not None:  # losses are not computed, and scores of all labels are large
            wanted = {label for label in wanted if self._is_read(label)}
        compiling = compile_options(self.layer.context.config)
        compiled = CompiledTick(turn_all, compiling, self.layer.path) if compiling is not None else None
        graph = self.graph
        seen = {node for label, node in graph.nodes.items() if self._is_read(label) or label in wanted}
        return make_program(self.layer, self.options, self.inputs, graph.nodes, graph.plan, wanted, compiled, seen)

    def _is_read(self, label: str) -> bool:
        """Whether the net outside reads the layer, or a user may."""
        options = self.graph.nodes[label].description
        asked = options.get("is_output_layer") or options.get("need_last")
        return bool(label == "output" or asked or label in self.read_outside)
