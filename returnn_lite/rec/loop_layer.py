"""`rec` with a dict as unit: a loop over a sub-network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.network.construct import Net, collect
from returnn_lite.network.network import start_points
from returnn_lite.rec.compiled import CompiledTick, compile_options
from returnn_lite.rec.fixpoint import infer_all
from returnn_lite.rec.fold import Folding, loop_axes
from returnn_lite.rec.initial import build_initial, link_initial
from returnn_lite.rec.loop import LoopRun
from returnn_lite.rec.loop_axis import LoopAxis
from returnn_lite.rec.loop_graph import LoopGraph, loop_losses
from returnn_lite.rec.loop_net import LoopNet
from returnn_lite.rec.ticks import turn_all
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText

LAST = "last:"  # the part of a loop that is an inner layer's last frame


@layer("rec.loop")
class RecLoop(Layer):
    """The dict `unit` evaluated once per frame of the loop axis; its output is the inner layer "output".

    Shape: (B, T, F) -> (T, B, …). The axis is that of the source, of `size_target`, or of the target; else it is as
    long as `end` is False, at most `max_seq_len` (see `loop_axis.py`). What does not depend on the previous tick runs
    once over the whole axis (see `plan.py`; `optimize_move_layers_out` False keeps all inside). `include_eos`: the tick
    of the end counts. `back_prop` False: no gradients through the loop. `use_global_rec_step_offset`: ":i" starts at
    the context's `tick_offset`. The global option `torch_compile` (True, or a dict of options of torch.compile such as
    {"backend": "inductor", "mode": "reduce-overhead"}) compiles what is left inside, from the second batch on.
    """

    class_name = "rec"
    recurrent = True
    checks_n_out = False
    needs_source = False

    def __init__(
        self,
        *,
        unit: dict[str, Any],
        max_seq_len: Any = None,
        max_seq_len_via: LayerRef | None = None,
        axis: AxisText = None,
        include_eos: bool = False,
        optimize_move_layers_out: bool | None = None,
        back_prop: bool | None = None,
        debug: bool | None = None,
        use_global_rec_step_offset: bool = False,
        cheating: bool = False,
        direction: int | None = None,
        initial_state: Any = None,
    ) -> None:
        super().__init__()
        if initial_state:
            raise self.error("`initial_state` is only for named units; inside a loop give it to the inner layers")
        if direction not in (None, 1):
            raise self.error(f"`direction` must be 1 for a loop over a sub-network, but is {direction} instead")
        self.unit = unit
        self.max_seq_len = max_seq_len
        self.max_seq_len_via = max_seq_len_via
        self.axis = axis
        self.include_eos = include_eos
        self.optimize = optimize_move_layers_out
        self.back_prop = back_prop
        self.use_global_rec_step_offset = use_global_rec_step_offset
        self.has_source = False
        self.outer_specs: dict[str, Spec | None] = {}
        self.read_outside: set[str] = set()  # inner layers that the net outside reads
        self.__dict__["length"] = LoopAxis(self)

    @property
    def length(self) -> LoopAxis:
        """The axis of the loop."""
        return self.__dict__["length"]  # type: ignore[no-any-return]

    @property
    def net(self) -> LoopNet:
        """The net of the unit."""
        return self.__dict__["net"]  # type: ignore[no-any-return]

    @property
    def graph(self) -> LoopGraph:
        """The inner layers, and where they run."""
        return self.__dict__["graph"]  # type: ignore[no-any-return]

    @property
    def compiled(self) -> CompiledTick | None:
        """The compiled tick, if the config asks for it."""
        return self.__dict__["compiled"]  # type: ignore[no-any-return]

    # --- construction -------------------------------------------------------------------------------------------------

    def link(self, net: Net, node: Node) -> Task[None]:
        """Links all layers of the unit that output, losses and output layers need."""
        self.has_source = bool(node.sources)
        inner = self.__dict__["net"] = LoopNet(self, net, self.unit)
        net.subnets[self.name] = inner
        if "output" not in self.unit:
            raise self.error('the unit needs a layer "output"')
        yield collect(self._start_points(), inner)
        yield inner.link_previous()
        yield _complete(inner)
        for name in [*inner.loss_targets(), *(found for found, *_ in loop_losses(inner))]:
            yield inner.ask(name)
        for inner_node in list(inner.order):
            yield link_initial(inner_node, inner)
        yield inner.link_previous()
        self.__dict__["graph"] = LoopGraph(inner)
        yield self.length.capture(net, inner, node.sources[0] if node.sources else None)
        node.refs.update(inner.captured)

    def _start_points(self) -> list[str]:
        found = ["output", *(n for n in start_points(self.unit, self.context) if n != "output")]
        found += [n for n, d in self.unit.items() if isinstance(d, Mapping) and d.get("need_last") and n not in found]
        return [*found, "end"] if self.length.may_end and "end" in self.unit and "end" not in found else found

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The inner output with the loop axis in front, which is the time axis."""
        self.outer_specs = {**refs}
        if sources:
            self.outer_specs["source"] = sources[0]
        if any(s is None for s in self.outer_specs.values()):
            return None
        self.length.find(self.outer_specs, self.net)
        infer_all(self.net.order)
        return self._outside(self.net.nodes["output"])

    def _outside(self, node: Node) -> Spec | None:
        """The Spec of an inner layer with the loop axis in front."""
        dim = self.length.dim
        if node.spec is None or dim is None:
            return None
        return node.spec.with_loop(dim).leave_loop(dim).roles(time=0)

    def building(self) -> Iterator[Any]:
        """The parameters of all inner layers."""
        for node in self.net.order:
            yield self.net.build(node)
            build_initial(node)
            self.net.tell(node)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The plan."""
        inner = self.net
        end = inner.nodes.get("end")
        if end is not None and end.spec is not None and not self.length.known:
            if end.spec.dtype != "bool" or any(not d.is_batch for d in end.spec.dims):
                raise end.layer.error(f"`end` must be bool (B,), but is {end.spec} instead")
        optimize = self.optimize
        if optimize is None:
            optimize = bool(self.context.config.bool("optimize_move_layers_out", True))
        options = compile_options(self.context.config)
        self.__dict__["compiled"] = CompiledTick(turn_all, options, self.path) if options is not None else None
        self.graph.make_plan(known_length=self.length.known, optimize=optimize)
        if self.context.log.verbosity >= 4:
            plan = self.graph.plan.text()
            self.context.log.v4(f"Rec layer {self.name!r} (search {self.context.search}):\n{plan}")

    # --- what the net outside asks for --------------------------------------------------------------------------------

    def loss_nodes(self) -> Iterator[tuple[str, Net, Node]]:
        """(label, net, node) of the inner layers with a loss; hypotheses of a search have no frames to compare with."""
        if self.last_beam_size() is None:
            yield from self.graph.with_loss()

    def inner_nodes(self) -> dict[str, Node]:
        """The inner layers by label."""
        return self.graph.nodes

    def part_spec(self, part: str) -> Spec | None:
        """The Spec of an inner layer, seen from outside. Raises ConfigError for one that exists only tick by tick."""
        graph, label = self.graph, part.removeprefix(LAST)
        self.read_outside.add(label)
        node = graph.nodes.get(label)
        if node is None:
            needed = ", ".join(graph.nodes)
            raise self.error(f"no layer {label!r} is needed in this loop; needed are: {needed}")
        if part.startswith(LAST):
            if not node.layer.options.need_last:
                raise node.layer.error('to read its last frame from outside, set "need_last": True on it')
            return node.spec
        if part in graph.plan.inside and part not in graph.accumulated():
            text = 'runs inside the loop; to read it from outside, set "is_output_layer": True on it'
            raise self.error(f"layer {part!r} {text}")
        return self._outside(node)

    def last_beam_size(self) -> int | None:
        """The beam size of the output in search: that of the last choice that searches; None without one."""
        layers = (n.layer for n in self.net.order)
        sizes = [getattr(x, "beam_size", None) for x in layers if getattr(x, "searches", False)]
        return sizes[-1] if sizes else None

    @property
    def stays_in_loop(self) -> str:
        """A loop that searches is not moved out of a loop around it."""
        return "makes search choices" if self.last_beam_size() is not None else ""

    @property
    def sees_batch(self) -> bool:  # type: ignore[override]
        """A loop that searches tells which hypotheses there are."""
        return self.last_beam_size() is not None

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Runs the loop; the inner layers the parent may read come along as parts."""
        outer = {**refs, **({"source": sources[0]} if sources else {})}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.back_prop is not False):
            if not loop_axes(x.spec for x in outer.values()):
                return LoopRun(self, outer).result()
            folding = Folding(outer.values())
            return folding.unfold(LoopRun(self, {k: folding.fold(x) for k, x in outer.items()}).result())


def _complete(net: LoopNet) -> Task[None]:
    """Links what sub-networks inside have of their own: losses, output layers."""
    waiting: deque[Net] = deque(net.subnets.values())
    while waiting:
        subnet = waiting.popleft()
        if not subnet.is_loop:
            yield collect(start_points(subnet.descriptions, net.shared.context), subnet)
            yield net.link_previous()
            waiting += subnet.subnets.values()
