"""Tensors made from nothing: `constant`, `train_flag`, `global_train_step`; and `cast`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.config.option_types import NaturalInt, shortened
from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.dim import FEATURE, SPATIAL
from returnn_lite.tensor.spec import Role
from returnn_lite.tensor.tensor import DTYPES


def static_dims(owner: Layer, shape: Sequence[ConfigValue]) -> list[Dim]:
    """The Dims of a shape of numbers and Dims; the last one is the feature axis."""
    dims = []
    for i, size in enumerate(shape):
        if not isinstance(size, (int, np.integer, Dim)):
            raise owner.error(f"`shape` must hold numbers and Dims, but is {tuple(shape)!r} instead")
        kind = FEATURE if i == len(shape) - 1 else SPATIAL
        dims.append(size.sized() if isinstance(size, Dim) else owner.dim(f"static:{i}", int(size), kind))
    return dims


def _as_array(value: Any) -> np.ndarray:
    """The value as numpy sees it; ConfigError unless it is a number, a bool, or lists of them."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        array = np.asarray(None)
    if array.dtype.kind not in "biufc":
        raise ConfigError("", f"`value` must be a number, a bool or an array, but is {shortened(value)} instead")
    return array


@layer("constant")
class Constant(Layer):
    """The number or array `value`.  Shape: () for a number, or `shape` filled with it; `with_batch_dim`: (B, …)

    `shape`: numbers and Dims (batch and dynamic ones too; `shape_deps` names layers that know their lengths).
    """

    sources = "none"

    def __init__(
        self,
        *,
        value: Any = 0.0,
        shape: Sequence[NaturalInt | Dim] | None = None,
        dtype: str | None = None,
        with_batch_dim: bool = False,
        sparse_dim: Dim | None = None,
        feature_dim: Dim | None = None,
        shape_deps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.value = _as_array(value)
        self.shape = shape
        self.dtype = dtype or {"b": "bool", "i": "int32", "u": "int32"}.get(self.value.dtype.kind, "float32")
        self.with_batch_dim = with_batch_dim
        self.sparse_dim = sparse_dim
        self.role = feature_dim
        self.shape_deps = tuple(shape_deps)
        check_dtype(self, self.dtype)

    async def link(self, net: Linker, node: Node) -> None:
        """The layers that know lengths are read."""
        for name in self.shape_deps:
            node.refs[f"shape_deps:{name}"] = await net.ask(name)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """`shape`, else the shape of the value."""
        dims = static_dims(self, self.value.shape if self.shape is None else self.shape)
        if self.with_batch_dim and not any(d.is_batch for d in dims):
            dims = [batch_dim, *dims]
        feature: Role = AUTO if self.role is None else self.role
        if self.sparse_dim is not None:
            return Spec(dims, self.dtype, sparse_dim=self.sparse_dim, feature=None)
        return Spec(dims, self.dtype, feature=feature)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The filled tensor."""
        spec = self.made_spec()
        sizes = MadeSizes(self, refs.values())
        value = torch.as_tensor(self.value, dtype=DTYPES[self.dtype], device=sizes.device)
        return sizes.tensor(value.expand(sizes.shape(spec)), spec)


def check_dtype(owner: Layer, dtype: str) -> None:
    """Raises ConfigError for an unknown dtype."""
    if dtype not in DTYPES:
        hint = did_you_mean(str(dtype), list(DTYPES))
        raise owner.error(f"`dtype` must be one of {', '.join(DTYPES)}, but is {dtype!r} instead{hint}")


@layer("train_flag")
class TrainFlag(Layer):
    """Whether the net is in training.  Shape: () bool"""

    sources = "none"

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """A single bool."""
        return Spec((), "bool")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The flag."""
        sizes = MadeSizes(self)
        return sizes.tensor(torch.full((), self.training, device=sizes.device), self.made_spec())


@layer("global_train_step")
class GlobalTrainStep(Layer):
    """Number of training steps so far.  Shape: () int64"""

    sources = "none"

    @property
    def differs_by_step(self) -> str:
        """The number is another one at each step."""
        return "counts the steps"

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """A single number."""
        return Spec((), "int64")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The number."""
        sizes = MadeSizes(self)
        return sizes.tensor(torch.tensor(self.context.global_step, device=sizes.device), self.made_spec())


@layer("cast")
class Cast(Layer):
    """The source as another `dtype`; sparse data becomes dense as a float.  Shape: (B, T, F) -> (B, T, F)"""

    def __init__(self, *, dtype: str, output: Any = None) -> None:
        super().__init__()
        self.dtype = dtype
        check_dtype(self, dtype)

    def spec(self, x: Spec | None) -> Spec | None:
        """The source with this dtype."""
        if x is None:
            return None
        keeps_classes = x.sparse and "int" in self.dtype
        return x.with_dtype(self.dtype, x.sparse_dim if keeps_classes else None)

    def forward(self, x: Tensor) -> Tensor:
        """The cast source."""
        return x.with_data(x.data.to(DTYPES[self.dtype]), self.spec(x.spec))
