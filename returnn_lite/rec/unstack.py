"""`rec_unstack`: the frames of a whole sequence, one per tick of the loop."""

from __future__ import annotations

import torch

from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, State, Stateful, Tick
from returnn_lite.rec.inputs import LoopInputs
from returnn_lite.rec.loop_net import LoopNet, SubnetInLoop
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis


@layer("rec_unstack")
class RecUnstack(Stateful):
    """Frame t of the source at tick t, for sequences from outside of the loop.  Shape: (B, T, F) -> (B, F)

    Over `axis`, by default the axis of the loop. `declare_rec_time`: the axis (default: time) is that of the loop.
    """

    takes_whole_sources = True
    inputs: LoopInputs

    def __init__(self, *, axis: AxisText = None, declare_rec_time: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.declares = declare_rec_time

    def link(self, net: Linker, node: Node) -> None:
        """Remembers what the loop reads, which gives its axis."""
        loop = net.loop if isinstance(net, SubnetInLoop) else net
        if not isinstance(loop, LoopNet):
            raise self.error("exists only inside a loop (the unit of a rec layer)")
        self.inputs = loop.inputs

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Always one frame per tick."""
        return True

    def declared_axis(self, x: Spec) -> int:
        """The axis that the loop runs over, with `declare_rec_time`."""
        return find_axis(x, "T" if self.axis is None else self.axis)

    def _axis(self, x: Spec) -> int:
        if self.axis is not None or self.declares:
            return self.declared_axis(x)
        found = find_axes(x, self.inputs.dim)
        if len(found) != 1:
            raise self.error(f"the source lacks the axis {self.inputs.dim} of the loop: {describe(x)}; give `axis`")
        return found[0]

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source without the axis."""
        return None if x is None else x.without([self._axis(x)])

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All frames: the axis is that of the loop."""
        x = self.run_input(sources)
        if dim in x.spec.loop:  # the source is another one at each tick
            at, own = x.spec.dims.index(dim), self._axis(x.spec)
            data = torch.diagonal(x.data, 0, at, own).movedim(-1, 0)
            return x.with_data(data, x.spec.without([at, own]).with_loop(dim))
        at = self._axis(x.spec)
        bare = x.spec.without([at])
        lengths = {dim: x.length(x.spec.dims[at])} if dim.dynamic else {}
        return x.with_lengths(lengths).with_data(x.data.movedim(at, 0), bare.with_loop(dim))

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The frame of this tick."""
        x = self.run_input(sources)
        at = self._axis(x.spec)
        if tick.number >= x.data.shape[at]:
            raise self.error(f"the source has {x.data.shape[at]} frames, but the loop has more ticks")
        return x.with_data(x.data.select(at, tick.number), x.spec.without([at])), state
