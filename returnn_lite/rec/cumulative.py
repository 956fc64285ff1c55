"""`cum_concat`: all frames so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick
from returnn_lite.rec.initial import Initial
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor


@layer("cum_concat")
class CumConcat(Stateful):
    """The frames of ticks 0 to t, on the new axis `out_spatial_dim`.  Shape: in a loop (B, F) -> (B, t + 1, F)

    Moved out of the loop it is the source itself, its frames on the new axis, and the lengths say what each tick sees.
    """

    grows: ClassVar[bool] = True
    recurrent = True
    checks_n_out = False

    def __init__(self, *, out_spatial_dim: Dim) -> None:
        super().__init__()
        if not isinstance(out_spatial_dim, Dim) or not out_spatial_dim.dynamic:
            raise self.error(f"`out_spatial_dim` must be a Dim without size, but is {out_spatial_dim!r} instead")
        self.out_spatial_dim = out_spatial_dim

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Always one frame per tick."""
        return True

    def spec(self, x: Spec | None) -> Spec | None:
        """The new axis behind the batch axis; it is the time axis if there was none."""
        if x is None:
            return None
        at = self._at(x)
        dims = (*x.dims[:at], self.out_spatial_dim, *x.dims[at:])
        time = at if x.time is None else x.dims[x.time]
        return x.with_dims(dims, time=time)

    @staticmethod
    def _at(x: Spec) -> int:
        """Where the new axis stands."""
        return 0 if x.batch is None else x.batch + 1

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Only loops have frames so far."""
        raise self.error("exists only inside a loop (the unit of a rec layer)")

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The loop axis becomes the new axis; tick t sees t + 1 frames of it."""
        x = self.run_input(sources)
        ticks = x.size(dim)
        at = x.spec.dims.index(dim)
        frame = x.spec.without([at])
        bare = Spec(
            frame.dims, frame.dtype, sparse_dim=frame.sparse_dim, time=frame.time, feature=frame.feature,
            loop=frame.loop - {dim},
        )  # fmt: skip
        data = x.data.movedim(at, self._at(bare))
        seen = Lengths(torch.arange(1, ticks + 1, dtype=torch.int32, device=x.device), ticks, (dim,))
        return x.with_lengths({self.out_spatial_dim: seen}).with_data(data, self.spec(bare))

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """No frames; their shape is known at the first tick."""
        return {}

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """No frames."""
        none = Lengths(torch.zeros((), dtype=torch.int32, device=make.device), 0, ())
        lengths = {**make.lengths, self.out_spatial_dim: none}
        return Initial(make.batch, make.device, lengths).zeros(spec)

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The frames so far and the present one."""
        x = self.run_input(sources)
        at = self._at(x.spec)
        frame = x.data.unsqueeze(at)
        # (B, …) in front for the loop, which re-orders states by their first axis
        frames = torch.cat([state["state"].movedim(0, max(at - 1, 0)), frame], at) if state else frame
        seen = Lengths(torch.full((), frames.shape[at], dtype=torch.int32, device=x.device), frames.shape[at], ())
        out = x.with_lengths({self.out_spatial_dim: seen}).with_data(frames, self.spec(x.spec))
        return out, {"state": frames.movedim(max(at - 1, 0), 0)}
