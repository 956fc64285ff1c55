"""Attention over an axis: `softmax_over_spatial` gives weights, `generic_attention` the weighted sum."""

from __future__ import annotations

import math
from functools import cached_property

import torch

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.attention import masked_log_softmax, masked_softmax
from returnn_lite.ops.masked import range_mask
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.hypotheses import product_of
from returnn_lite.tensor.masked import fill_padding, mask


@layer("softmax_over_spatial")
class SoftmaxOverSpatial(Layer):
    """Softmax over an axis (default: time), frames after the sequence ends masked out.  Shape: (B, T, H) -> (B, H, T)

    The axis goes to the end. Energies outside the sequence, before `start`, or outside the window
    [window_start, window_start + window_size) count as -inf; then times `energy_factor`. `log_space`: the logarithm.
    """

    full_precision = True
    recurrent = True

    def __init__(
        self,
        *,
        axis: AxisText = None,
        energy_factor: float | None = None,
        start: LayerRef | None = None,
        window_start: LayerRef | int | None = None,
        window_size: LayerRef | NaturalInt | None = None,
        use_time_mask: bool | None = None,
        log_space: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.energy_factor = energy_factor
        self.start = start
        self.window_start = window_start
        self.window_size = window_size
        self.use_time_mask = use_time_mask
        self.log_space = log_space
        if window_start is not None and window_size is None:
            raise self.error("`window_start` needs `window_size`")
        if use_time_mask is False and (start is not None or window_start is not None):
            raise self.error("`start` and `window_start` need the mask over time, but `use_time_mask` is False")

    @cached_property
    def infinity(self) -> float:
        """Minus this is the energy of what is masked out."""
        return float(self.context.config.float("inf_value", math.inf))

    def is_recurrent(self) -> bool:
        """Not over a static axis."""
        return not (isinstance(self.axis, str) and self.axis.lower().startswith(("static", "dim:", "f")))

    def axis_of(self, x: Spec) -> int:
        """The position of the axis."""
        if self.axis is None and x.time is None:
            raise self.error(f"the source needs a time axis, or give `axis`; the source is {describe(x)}")
        return find_axis(x, "T" if self.axis is None else self.axis)

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The axis at the end."""
        if x is None:
            return None
        at = self.axis_of(x)
        return x.permuted((*(i for i in range(x.rank) if i != at), at))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The weights; exactly 0 where masked."""
        x = sources[0].axis_last(self.axis_of(sources[0].spec))
        valid = self.valid_part(x, refs)
        softmax = masked_log_softmax if self.log_space else masked_softmax
        weights = softmax(x.data, valid, lowest=-self.infinity, scale=self.energy_factor or 1.0)
        return x.with_data(weights, zero_padded=valid is not None and not self.log_space)

    def valid_part(self, x: Tensor, refs: dict[str, Tensor]) -> torch.Tensor | None:
        """Bool: which positions of the last axis count."""
        dynamic = x.spec.dims[-1].dynamic
        use = dynamic if self.use_time_mask is None else self.use_time_mask
        if not use:
            return None
        valid = mask(x, x.spec.rank - 1)
        start, size = self._bound("start", x, refs), self._bound("window_size", x, refs)
        first = self._bound("window_start", x, refs)
        if start is None and first is None:
            return valid
        positions = torch.arange(x.data.shape[-1], device=x.data.device)
        return range_mask(positions, valid, start=start, first=first, size=size)

    def _bound(self, option: str, x: Tensor, refs: dict[str, Tensor]) -> torch.Tensor | int | None:
        """The value of an option: a number, or a layer's output shaped to broadcast against the energies."""
        if option not in refs:
            value = getattr(self, option)
            return value if isinstance(value, int) else None
        bound = refs[option]
        shape = [1] * x.spec.rank
        for i, dim in enumerate(bound.spec.dims):
            at = next((j for j, d in enumerate(x.spec.dims) if d == dim or (d.is_batch and dim.is_batch)), None)
            if at is not None:
                shape[at] = bound.data.shape[i]
        return bound.data.reshape(shape)


@layer("generic_attention")
class GenericAttention(Layer):
    """Sum over the time axis of `weights` times `base`.  Shape: base (B, T, F), weights (B, T, 1) -> (B, F)

    Axes: time of both summed; batch and axes that match (from the right, by size) common, e.g. heads: base (B, T, H,
    V), weights (B, T, H) -> (B, H, V); other axes of the weights are kept before the features, unless they have size
    1.
    """

    sources = "none"
    recurrent = True

    def __init__(self, *, weights: LayerRef, base: LayerRef, auto_squeeze: bool = True) -> None:
        super().__init__()
        self.weights = weights
        self.base = base
        self.auto_squeeze = auto_squeeze

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Batch, common axes, kept axes of the weights, features."""
        weights, base = refs["weights"], refs["base"]
        if weights is None or base is None:
            return None
        return self.sum_plan(weights, base).out

    def sum_plan(self, weights: Spec, base: Spec) -> _Plan:
        """The equation and the result's Spec for weights and base of these Specs."""
        return base.memo(("attention", weights, self.auto_squeeze), lambda: self._plan(weights, base))

    def _plan(self, weights: Spec, base: Spec) -> _Plan:
        """Which axes are summed, common, kept."""
        time_b, time_w = self._time_axes(weights, base)
        loops = [d for d in (*weights.dims, *base.dims) if d in weights.loop | base.loop]
        skip_b = {base.batch, time_b, base.feature, *(base.dims.index(d) for d in loops if d in base.dims)}
        skip_w = {weights.batch, time_w, *(weights.dims.index(d) for d in loops if d in weights.dims)}
        common_b = [i for i in range(base.rank) if i not in skip_b]
        left_w = [i for i in range(weights.rank) if i not in skip_w]
        pairs: dict[int, int] = {}
        for i in reversed(common_b):
            j = next((j for j in reversed(left_w) if weights.dims[j].size == base.dims[i].size), None)
            if j is None:
                raise self.error(
                    f"the axis {base.dims[i]} of the base matches no axis of the weights; {weights}, {base}"
                )
            pairs[i] = j
            left_w.remove(j)
        squeezed = [j for j in left_w if weights.dims[j].size == 1 and self.auto_squeeze]
        kept = [j for j in left_w if j not in squeezed]
        return _Plan.make(weights, base, (time_b, time_w), pairs, squeezed, kept, list(dict.fromkeys(loops)))

    def _time_axes(self, weights: Spec, base: Spec) -> tuple[int, int]:
        if base.time is None:
            raise self.error(f"the base needs a time axis, but is {base}")
        time_dim = base.dims[base.time]
        if time_dim in weights.dims:
            return base.time, weights.dims.index(time_dim)
        if len(weights.dynamic) == 1 and weights.time is not None:
            return base.time, weights.time
        raise self.error(f"weights and base share no time axis; weights: {weights}, base: {base}")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The weighted sum, as one batched matrix product."""
        weights, base = refs["weights"], refs["base"]
        plan = self.sum_plan(weights.spec, base.spec)
        if not (weights.zero_padded or base.zero_padded) and weights.spec.dims[plan.time_w].dynamic:
            weights = weights.with_data(fill_padding(weights, 0.0, [plan.time_w]))
        data = product_of(plan.equation, weights, base)
        for i in plan.squeezed:
            data = data.squeeze(i)
        return joined(data, plan.out, [weights, base])


class _Plan:
    """The equation of a weighted sum, and the Spec of its result, from which the axes `squeezed` are gone."""

    def __init__(self, equation: str, out: Spec, time_w: int, squeezed: list[int]) -> None:
        self.equation = equation
        self.out = out
        self.time_w = time_w
        self.squeezed = squeezed

    @staticmethod
    def make(
        weights: Spec,
        base: Spec,
        times: tuple[int, int],
        pairs: dict[int, int],
        squeezed: list[int],
        kept: list[int],
        loops: list[Dim],
    ) -> _Plan:
        """Letters: one per axis of the base; the weights take over those of the axes they share."""
        letters_b = {i: chr(ord("a") + i) for i in range(base.rank)}
        letters_w: dict[int, str] = {times[1]: letters_b[times[0]]}
        if weights.batch is not None and base.batch is not None:
            letters_w[weights.batch] = letters_b[base.batch]
        for i, j in pairs.items():
            letters_w[j] = letters_b[i]
        for dim in loops:
            if dim in weights.dims and dim in base.dims:
                letters_w[weights.dims.index(dim)] = letters_b[base.dims.index(dim)]
        fresh = iter("ABCDEFGHIJ")
        for j in range(weights.rank):
            if j not in letters_w:
                letters_w[j] = next(fresh)
        dims: list[tuple[str, Dim]] = []
        for dim in loops:
            where = (letters_b, base) if dim in base.dims else (letters_w, weights)
            dims.append((where[0][where[1].dims.index(dim)], dim))
        for spec, letters in ((base, letters_b), (weights, letters_w)):
            if spec.batch is not None and all(not d.is_batch for _, d in dims):
                dims.append((letters[spec.batch], spec.dims[spec.batch]))
        dims += [(letters_b[i], base.dims[i]) for i in sorted(pairs)]
        dims += [(letters_w[j], weights.dims[j]) for j in kept]
        gone = range(len(dims), len(dims) + len(squeezed))
        text = "".join(c for c, _ in dims) + "".join(letters_w[j] for j in squeezed)
        if base.feature is not None:
            text += letters_b[base.feature]
            dims.append((letters_b[base.feature], base.dims[base.feature]))
        w_text = "".join(letters_w[j] for j in range(weights.rank))
        b_text = "".join(letters_b[i] for i in range(base.rank))
        out = Spec(
            [d for _, d in dims],
            base.dtype,
            feature=len(dims) - 1 if base.feature is not None else None,
            loop=frozenset(loops),
        )
        return _Plan(f"{w_text},{b_text}->{text}", out, times[1], list(reversed(gone)))
