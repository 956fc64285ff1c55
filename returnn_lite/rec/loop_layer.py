"""`rec` with a dict as unit: a loop over a sub-network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.network.construct import Net
from returnn_lite.network.inner import InnerLayers
from returnn_lite.network.recomputation import Step
from returnn_lite.rec.fold import Folding, loop_axes
from returnn_lite.rec.loop import run_loop
from returnn_lite.rec.loop_builder import LoopBuilder
from returnn_lite.rec.loop_options import LoopOptions
from returnn_lite.rec.program import LoopProgram
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText


@layer("rec.loop")
class RecLoop(InnerLayers):
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
        self.back_prop = back_prop
        self.loop = LoopOptions(
            unit, max_seq_len, max_seq_len_via, axis, include_eos, optimize_move_layers_out, use_global_rec_step_offset
        )
        self.max_seq_len_via = max_seq_len_via
        self.beam_size: int | None = None
        self._builder: LoopBuilder | None = None
        self._program: LoopProgram | None = None

    # --- construction -------------------------------------------------------------------------------------------------

    @property
    def builder(self) -> LoopBuilder:
        """What builds the loop, until it is built."""
        if self._builder is None:
            raise RuntimeError(f"{self.path} is not under construction")
        return self._builder

    async def link(self, net: Net, node: Node) -> None:
        """Links all layers of the unit that output, losses and output layers need."""
        builder = self._builder = LoopBuilder(self, self.loop, net, has_source=bool(node.sources))
        net.subnets[self.name] = builder.inner
        if "output" not in self.loop.unit:
            raise self.error('the unit needs a layer "output"')
        await builder.link(node.sources[0] if node.sources else None)
        self.beam_size = builder.beam_size()
        node.refs.update(builder.inputs.captured)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The inner output with the loop axis in front, which is the time axis."""
        return self.builder.infer({**refs, "source": sources[0]} if sources else refs)

    async def building(self) -> None:
        """The parameters of all inner layers."""
        await self.builder.build()

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The plan."""
        self.builder.make_plan()

    def freeze(self) -> None:
        """The loop as it is run."""
        self._program, self._builder = self.builder.program(), None

    def inside(self) -> str:
        """Which layers run where."""
        return str(self.program)

    # --- what the net outside asks for --------------------------------------------------------------------------------

    @property
    def program(self) -> LoopProgram:
        """The loop as it is run."""
        if self._program is None:
            raise RuntimeError(f"{self.path} is still under construction")
        return self._program

    def loss_nodes(self) -> Iterator[tuple[str, Net, Node]]:
        """(label, net, node) of the inner layers with a loss."""
        return self.builder.loss_nodes()

    def inner_nodes(self) -> Mapping[str, Node]:
        """The inner layers by label."""
        return self.builder.graph.nodes

    def inner_steps(self) -> list[tuple[Step, ...]]:
        """What runs before the ticks, the ticks as one, what runs after them."""
        program = self.program
        before, after = ([(step,) for step in program.fusion.steps(part)] for part in (program.before, program.after))
        inside = tuple((node, node) for node in program.inside)
        return [*before, *((inside,) if inside else ()), *after]

    def part_spec(self, part: str) -> Spec | None:
        """The Spec of an inner layer, seen from outside. Raises ConfigError for one that exists only tick by tick."""
        return self.builder.part_spec(part)

    def decided_beam(self) -> int | None:
        """The beam size of the output in search."""
        return self.beam_size

    @property
    def stays_in_loop(self) -> str:
        """A loop that searches is not moved out of a loop around it."""
        return "makes search choices" if self.beam_size is not None else ""

    @property
    def sees_batch(self) -> bool:
        """A loop that searches tells which hypotheses there are."""
        return self.beam_size is not None

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Runs the loop; the inner layers the parent may read come along as parts."""
        program, run = self.program, self.context.run
        outer = {**refs, **({"source": sources[0]} if sources else {})}
        gradients = self.back_prop is not False
        if not loop_axes(x.spec for x in outer.values()):
            return run_loop(program, outer, run, gradients=gradients)
        folding = Folding(outer.values())
        folded = {k: folding.fold(x) for k, x in outer.items()}
        return folding.unfold(run_loop(program, folded, run, gradients=gradients))
