"""Sums and products with weights along axes: `cumsum`, `weighted_sum`, `elemwise_prod`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import LoopConstants, State, Stateful, Tick, is_frame
from returnn_lite.layers.slicing import kind_of, with_axis
from returnn_lite.ops.precision import raised
from returnn_lite.ops.windows import centred, sliding
from returnn_lite.tensor import Dim, Spec, Tensor, single_step_dim
from returnn_lite.tensor.align import place
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis


@layer("cumsum")
class Cumsum(Stateful):
    """Running sum along an axis of the padded tensor.  Shape: (B, T, F) -> (B, T, F)

    `reverse`: from the end of the padded tensor. `additional_left_summand_per_element`: added to every element first.
    In a loop, over its axis (`axis` is that Dim, `single_step_dim`, or the source has no time axis): the sum over the
    ticks so far, (B, F) -> (B, F). `state`: {"state": layer}, the sum so far, if the loop is not to keep it.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        axis: AxisText = "T",
        additional_left_summand_per_element: float | None = None,
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.summand = additional_left_summand_per_element
        self.reverse = reverse
        self.in_loop = False

    async def link(self, net: Linker, node: Node) -> None:
        """Refers to the sum so far."""
        self.in_loop = net.inside_loop
        given = self.options.state
        if given is not None:
            name = given.get("state") if isinstance(given, Mapping) else given
            node.refs["state"] = await net.ask(name)

    def _is_frame(self, x: Spec) -> bool:
        return (self.in_loop or self.axis == single_step_dim) and is_frame(x, self.axis)

    def carries_state(self, sources: tuple[Spec | None, ...]) -> bool:
        """Whether the loop around it keeps the sum so far."""
        return self.options.state is None and self.in_loop and all(s is None or self._is_frame(s) for s in sources)

    def spec(self, x: Spec | None, state: Spec | None = None) -> Spec | None:
        """The source."""
        if x is None:
            return None
        if not self._is_frame(x):
            find_axis(x, self.axis)
        elif self.reverse:
            raise self.error("`reverse` is impossible in a loop over the axis: the later frames are not known")
        return x

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """The running sums."""
        if self._is_frame(x.spec):
            data = self._summands(x)
            return x.with_data(data if state is None else data + place(state, x.spec, self.behavior))
        return self._sums(x, find_axis(x.spec, self.axis))

    def over(self, dim: Dim, sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        """The sums over the ticks."""
        x = self.run_input(sources)
        return self._sums(x, x.spec.dims.index(dim))

    def _sums(self, x: Tensor, at: int) -> Tensor:
        data = self._summands(x)
        if self.reverse:
            return x.with_data(data.flip(at).cumsum(at, dtype=data.dtype).flip(at))
        return x.with_data(data.cumsum(at, dtype=data.dtype))

    def _summands(self, x: Tensor) -> torch.Tensor:
        data = raised(x.data)
        return data if self.summand is None else data + self.summand

    def step(self, constants: LoopConstants, sources: list[Tensor], state: State, tick: Tick) -> tuple[Tensor, State]:
        """The sum of the ticks so far."""
        x = self.run_input(sources)
        batch = x.spec.batch or 0
        total = self._summands(x)
        if "state" in state:
            total = total + state["state"].movedim(0, batch)
        return x.with_data(total), {"state": total.movedim(batch, 0)}


@layer("weighted_sum")
class WeightedSum(Layer):
    """Sum over `axes` with learned weights.  Shape: (B, T, F), axes "F" -> (B, T).  y = sum_i W_i x_i

    With `size` the weights slide over the axes (y_t = sum_i W_i x_(t + i - left)), which stay, by `padding` "same" or
    "valid". `keep_dims`: the axes stay (with size 1 if they are summed as a whole). Parameter: `W`, all 1 / n.
    """

    recurrent = True
    lets_padding_through = True

    def __init__(
        self,
        *,
        axes: AxisText,
        padding: str | None = None,
        size: Sequence[PositiveInt] | PositiveInt | None = None,
        keep_dims: bool | None = None,
    ) -> None:
        super().__init__()
        self.axes = axes
        self.size = (size,) if isinstance(size, int) else None if size is None else tuple(size)
        self.padding = (padding or "valid").lower()
        self.keep_dims = size is not None if keep_dims is None else keep_dims
        if size is not None and padding is None:
            raise self.error('`size` needs `padding` "same" or "valid"')
        if self.padding not in ("same", "valid"):
            raise self.error(f'`padding` must be "same" or "valid", but is {padding!r} instead')

    def _sizes(self, x: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes and the shape of W."""
        found = find_axes(x, self.axes, option="axes")
        known: Sequence[int | None] = self.size or [x.dims[i].size for i in found]
        sizes = tuple(n for n in known if n is not None)
        if not found or len(known) != len(found) or len(sizes) < len(known):
            raise self.error(f"`axes` {self.axes!r} must be static axes, or `size` must be given; the source: {x}")
        return found, sizes

    def spec(self, x: Spec | None) -> Spec | None:
        """The axes gone, or with what is left of them."""
        if x is None:
            return None
        found, sizes = self._sizes(x)
        for at, n in zip(found, sizes, strict=True):
            left = x.dims[at] if self.padding == "same" else x.dims[at].window(n)
            x = with_axis(x, at, self.dim(f"sum{at}", 1, kind_of(x, at)) if left.size == 1 else left)
        return x if self.keep_dims else x.without(found)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`W`."""
        _, sizes = self._sizes(sources[0])
        self.W = self.param("W", sizes, 1.0 / math.prod(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sums."""
        found, sizes = self._sizes(x.spec)
        data = x.data
        for at, n in zip(found, sizes, strict=True):
            data = sliding(data, at, n, margins=centred(n) if self.padding == "same" else (0, 0))
        data = (data * self.W).sum(tuple(range(-len(sizes), 0)))
        if not self.keep_dims:
            data = data.reshape([n for i, n in enumerate(data.shape) if i not in found])
        return x.with_data(data, self.spec(x.spec))


@layer("elemwise_prod")
class ElemwiseProd(Layer):
    """The source times a learned weight for every position of `axes`.  Shape: (B, T, F), "F" -> (B, T, F).  y = W x

    Parameter: `W`, all 1, with the sizes of the axes (or `size`).
    """

    def __init__(self, *, axes: AxisText, size: Sequence[PositiveInt] | PositiveInt | None = None) -> None:
        super().__init__()
        self.axes = axes
        self.size = (size,) if isinstance(size, int) else None if size is None else tuple(size)

    def _shape(self, x: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found = tuple(sorted(find_axes(x, self.axes, option="axes")))
        sizes = tuple(x.dims[i].size for i in found) if self.size is None else self.size
        if not found or any(n is None for n in sizes) or len(sizes) != len(found):
            raise self.error(f"`axes` {self.axes!r} must be static axes; the source: {x}")
        return found, tuple(int(n or 0) for n in sizes)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`W`."""
        self.W = self.param("W", self._shape(sources[0])[1], 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        found, _ = self._shape(x.spec)
        shape = [n if i in found else 1 for i, n in enumerate(x.data.shape)]
        return x.with_data(x.data * self.W.reshape(shape))
