"""Positions as features: `positional_encoding`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.core.base import LayerRef
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, LoopStart, State, Stateful, Tick, is_frame
from returnn_lite.ops.positions import sinusoids
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.align import common, joined, place, sizes
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis


@layer("positional_encoding")
class PositionalEncoding(Stateful):
    """Sinusoids of the frame positions.  Shape: (B, T, F) -> (B, T, n_out); in a loop (B, F) -> (B, n_out), by its tick

    `add_to_input`: added to the source. `constant` (>= 0): that position everywhere. `offset`: a layer (B,) or (B, T)
    that is added to the positions.
    """

    recurrent = True

    stays_in_loop: str = ""

    def __init__(
        self,
        *,
        n_out: PositiveInt | None = None,
        axis: AxisText = None,
        add_to_input: bool = False,
        constant: int = -1,
        offset: LayerRef | None = None,
    ) -> None:
        super().__init__()
        self.n_out = n_out
        self.axis = axis
        self.add_to_input = add_to_input
        self.constant = constant
        self.offset = offset

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Without `from`, the tick inside of loops."""
        if "from" not in description:
            return {**description, "from": ":i" if net.in_loop else "data"}
        return description

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the positions are ticks of the loop: the source lacks the axis."""
        return self.axis is None if sources[0] is None else is_frame(sources[0], self.axis)

    def _size(self, x: Spec) -> int:
        named = (self.options.out_type or {}).get("dim") if isinstance(self.options.out_type, Mapping) else None
        size = self.n_out or getattr(self.options.out_dim, "size", None) or named or x.dim
        if size is None:
            raise self.error("the output size is not known: give `n_out`")
        if size < 4:
            raise self.error(f"`n_out` must be at least 4, but is {size} instead")
        if self.add_to_input and size != x.dim:
            raise self.error(f"`n_out` must be {x.dim} to be added to the source, but is {size} instead")
        return int(size)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source with `n_out` features."""
        x = sources[0]
        if x is None:
            return None
        size = self._size(x)
        if self.add_to_input:
            return x
        dense = x.with_dtype("float32").with_feature(self.feature_dim(size, x))
        if dense.batch is None and self.carries_state(sources):
            return Spec((batch_dim, *dense.dims), time=None, feature=dense.rank, loop=dense.loop)
        return dense

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """No parameters."""
        if sources[0].batch is None:
            self.stays_in_loop = "counts the ticks of each sequence"

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """All frames of the axis."""
        at = find_axis(x.spec, "T" if self.axis is None else self.axis)
        return self._encoded(x, x.spec.dims[at], refs)

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """All ticks of a loop: they are the positions."""
        return self._encoded(self.run_input(sources), dim, refs)

    def _encoded(self, x: Tensor, dim: Dim, refs: Mapping[str, Tensor]) -> Tensor:
        """The encoding along the axis `dim`."""
        if self.constant >= 0:
            return self._output(x, Tensor(torch.full((), self.constant, device=x.device), Spec((), "int32"), {}))
        positions = torch.arange(x.size(dim), device=x.device)
        return self._output(x, self._moved(Tensor(positions, Spec((dim,), "int32"), x.lengths), refs))

    def _moved(self, positions: Tensor, refs: Mapping[str, Tensor]) -> Tensor:
        """The positions with the offset added."""
        if "offset" not in refs:
            return positions
        offset = refs["offset"]
        both = common((offset.spec, positions.spec))
        return joined(place(positions, both) + place(offset, both), both, [offset, positions])

    def _output(self, x: Tensor, positions: Tensor) -> Tensor:
        """The encoding of these positions, in the layout of the output."""
        spec = self.spec(x.spec)
        if spec is None or spec.feature is None:
            raise self.error(f"the source needs features, but is {x.spec}")
        feature = spec.dims[spec.feature]
        signal = sinusoids(positions.data, feature.size or 0)
        dims = (*positions.spec.dims, feature)
        data = place(Tensor(signal, Spec(dims, feature=len(dims) - 1), x.lengths), spec)
        if self.add_to_input:
            return x.with_data(x.data + data)
        return x.with_data(data.expand(sizes(spec, [x, positions])), spec)

    # --- tick by tick -------------------------------------------------------------------------------------------------

    def first_state(self, make: LoopStart, refs: Mapping[str, Tensor]) -> State:
        """Position 0."""
        return {"position": torch.zeros(make.batch, dtype=torch.int32, device=make.device)}

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The encoding of the next position of each sequence."""
        x = self.run_input(sources)
        positions = state["position"]
        counted = positions if self.constant < 0 else torch.full_like(positions, self.constant)
        now = Tensor(counted, Spec((batch_dim,), "int32", feature=None), {})
        out = self._output(x, self._moved(now, tick.refs) if self.constant < 0 else now)
        return out, {"position": positions + 1}
