"""Projections of one source, such as queries, keys and values, as one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.joint import Joint
from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.linear import linear
from returnn_lite.tensor import Tensor

FEWEST = 3  # of two products the weights are put together, and their gradients taken apart, for nothing


@dataclass(frozen=True)
class Projection:
    """A linear layer without activation; its parameters are looked up when it runs."""

    layer: Layer
    with_bias: bool


class JointLinear(Joint):
    """Several `linear` layers.  Shape: (B, T, F) -> (B, T, sum of n_out)"""

    class_name = "one product"

    def __init__(self, projections: Sequence[Projection]) -> None:
        super().__init__([projection.layer for projection in projections])
        self.with_bias = projections[0].with_bias

    def worthwhile(self, x: Tensor) -> bool:
        """On a GPU, where small products are mostly waiting."""
        return on_gpu(x.data) and x.spec.feature == x.spec.rank - 1 and not x.spec.sparse

    def together(self, x: Tensor) -> Tensor:
        """By one product."""
        weights = torch.cat([self._of(layer, "W") for layer in self.members], 1)
        bias = torch.cat([self._of(layer, "b") for layer in self.members]) if self.with_bias else None
        return x.with_data(linear(x.data, weights.t(), bias), self.made_spec(x.spec))

    @staticmethod
    def _of(layer: Layer, name: str) -> torch.Tensor:
        """A parameter, or what stands for it in this run."""
        value: torch.Tensor = getattr(layer, name)
        return value
