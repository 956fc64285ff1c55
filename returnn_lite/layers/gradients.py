"""Layers about gradients: `scaled_grad`, `gradient`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.gradients import scaled_gradient
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axis as find_axis


@layer("scaled_grad")
class ScaledGrad(Layer):
    """The source itself; its gradient is scaled: grad * scale + shift.  Shape: any -> the same

    `scale`: a number, or a layer, which broadcasts. `scale` 0 without `shift` stops the gradient.
    `scale_shift_by_sum_over_axis`: `shift` is multiplied by the sum of
    absolute gradients over that axis.
    """

    def __init__(
        self,
        *,
        scale: LayerRef | float,
        shift: float | None = None,
        scale_shift_by_sum_over_axis: AxisText = None,
        clip_max_axis: Any = None,
    ) -> None:
        super().__init__()
        if clip_max_axis is not None:
            raise self.error("`clip_max_axis` is not supported; use `scale` and `shift`, or clip by `updater_opts`")
        self.scale = scale
        self.shift = float(shift or 0.0)
        self.sum_axis = scale_shift_by_sum_over_axis

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source."""
        return x

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The source."""
        if not x.data.dtype.is_floating_point:
            return x
        scale = place(refs["scale"], x.spec, self.behavior) if "scale" in refs else cast(float, self.scale)
        axis = (
            None if self.sum_axis is None else find_axis(x.spec, self.sum_axis, option="scale_shift_by_sum_over_axis")
        )
        return x.with_data(scaled_gradient(x.data, scale, self.shift, axis))


@layer("gradient")
class Gradient(Layer):
    """The gradient of the scalar layer `y` with respect to the layer `x`.  Shape: that of x

    It can itself be differentiated. Gradients are kept in every evaluation of a net with this layer.
    """

    sources = "none"

    def __init__(self, *, y: LayerRef, x: LayerRef) -> None:
        super().__init__()
        self.y = y
        self.x = x

    def link(self, net: Linker, node: Node) -> None:
        """The output of `x` is followed by autograd."""
        if node.refs["y"] is node.refs["x"]:
            raise self.error("`y` and `x` must be two layers")
        self.context.differentiates = True
        watched = node.refs["x"].layer
        watched.run = _followed(watched.run)  # type: ignore[method-assign]

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """That of `x`."""
        y = refs["y"]
        if y is not None and y.rank:
            raise self.error(f"`y` must be a scalar, but is {y} instead")
        return refs["x"]

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """dy / dx; zeros where y does not depend on x."""
        y, x = refs["y"], refs["x"]
        if not y.data.requires_grad:
            return x.with_data(torch.zeros_like(x.data))
        (found,) = torch.autograd.grad(y.data, x.data, create_graph=self.training, retain_graph=True, allow_unused=True)
        return x.with_data(torch.zeros_like(x.data) if found is None else found)


def _followed(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`run` whose output autograd follows even if nothing before it needs a gradient."""

    def followed(sources: list[Tensor], refs: dict[str, Tensor]) -> Tensor:
        out = run(sources, refs)
        if out.data.requires_grad or not torch.is_grad_enabled():
            return out
        out = out.copy()
        out.data = out.data.detach().requires_grad_()
        return out

    return followed
