"""`unmask`: from the frames that a mask chose back to all frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick
from returnn_lite.rec.compress import Frames, renamed
from returnn_lite.rec.inputs import InnerSource
from returnn_lite.rec.masked import MaskedComputation
from returnn_lite.tensor import Dim, Spec, Tensor


@layer("unmask")
class Unmask(Stateful):
    """Back from the frames that a mask chose to all frames: each frame reads the last chosen one before or at it.

    Shape: (B, T', F), mask (B, T) -> (B, T, F). In a loop, mask (B,): (B, T', F) -> (B, F); a layer that is itself a
    `masked_computation` of the loop passes as it is. Before the first chosen frame: the initial output of the source
    (0, or its `initial_output` if that is a number).
    """

    checks_n_out = False
    takes_whole_sources = True

    def __init__(self, *, mask: LayerRef) -> None:
        super().__init__()
        self.mask = mask
        self.counts = False
        self.initial = 0.0

    def link(self, net: Linker, node: Node) -> None:
        """Notes the initial output of the source."""
        source = node.sources[0]
        owner = source.layer.outer_node if isinstance(source.layer, InnerSource) else None
        found = owner.layer if owner is not None else source.layer
        options: Mapping[str, Any] = found.unit if isinstance(found, MaskedComputation) else vars(found.options)
        value = options.get("initial_output")
        self.initial = float({"ones": 1.0}.get(value, 0.0) if isinstance(value, str) else value or 0.0)

    def output_spec(self, sources: tuple[Spec | None, ...], refs: Mapping[str, Spec | None]) -> Spec | None:
        """Notes whether it counts the chosen frames tick by tick."""
        x, mask = sources[0], refs.get("mask")
        self.counts = x is not None and x.time is not None and (mask is None or mask.time is None)
        return super().output_spec(sources, refs)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source with the axis of the mask; in a loop without its time axis."""
        x, mask = sources[0], refs["mask"]
        if x is None or x.time_dim is None:
            return x
        if mask is None or mask.time_dim is None:
            return x.without([x.time or 0], time=None)
        return renamed(x, x.time_dim, mask.time_dim)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """All frames; in a loop the source."""
        x, mask = sources[0], refs["mask"]
        if x.spec.time_dim is None:
            return x
        if mask.spec.time_dim is None:
            raise self.error(f"outside of loops the mask needs a time axis, but is {mask.spec}")
        return Frames(mask, mask.spec.time_dim, x.spec.time_dim).spread(x, self.initial)

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether it counts the chosen frames tick by tick."""
        return self.counts

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """No frame was chosen yet."""
        return {"frame": torch.full((make.batch,), -1, dtype=torch.int64, device=make.device)}

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """That of the source."""
        return make.full(spec, self.initial)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The frame that was chosen last."""
        frame = state["frame"] + tick.refs["mask"].data
        x = sources[0]
        out = self._at(x, frame.unsqueeze(0)).squeeze(0)
        return x.with_data(out, self.spec(x.spec, mask=tick.refs["mask"].spec)), {"frame": frame}

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks at once."""
        x, mask = sources[0], refs["mask"]
        at = mask.spec.dims.index(dim)
        frame = mask.data.movedim(at, 0).cumsum(0) - 1
        spec = self.spec(x.spec, mask=mask.spec.in_loop(dim))
        if spec is None:
            raise self.error("the axes of the source are not known")
        out = Tensor(self._at(x, frame), spec.with_loop(dim), x.lengths, x.beam)
        return out.with_lengths({dim: mask.lengths[dim]}) if dim in mask.lengths else out

    def _at(self, x: Tensor, frame: torch.Tensor) -> torch.Tensor:
        """Frames (N, B) of the source, the other axes in their order.  Shape: -> (N, B, …)"""
        batch, time = x.spec.batch or 0, x.spec.time or 0
        rest = [i for i in range(x.spec.rank) if i not in (batch, time)]
        data = x.data.permute(time, batch, *rest)
        if data.shape[0] == 0:
            data = data.new_zeros((1, *data.shape[1:]))
        index = frame.clamp(0, data.shape[0] - 1).reshape(*frame.shape, *[1] * len(rest))
        found = data.gather(0, index.expand(*frame.shape, *data.shape[2:]))
        found = torch.where((frame < 0).reshape(index.shape), found.new_tensor(self.initial), found)
        order = [batch - (time < batch), *(i - (time < i) for i in rest)]
        back = sorted(range(len(order)), key=lambda i: order[i])
        return found.permute(0, *(i + 1 for i in back))
