"""What eval strings and functions see of tensors, layers and the network, by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.tensor import Tensor

if TYPE_CHECKING:
    from returnn_lite.layers.base import Layer


class SourceView:
    """A source as a data object: `placeholder`, the positions of its axes, its lengths."""

    def __init__(self, x: Tensor, name: str, wrap: Callable[[torch.Tensor], Any] = lambda t: t) -> None:
        self._x = x
        self._wrap = wrap
        self.name = name
        self.placeholder = wrap(x.data)
        self.batch_dim_axis = x.spec.batch
        self.time_dim_axis = x.spec.time
        self.feature_dim_axis = x.spec.feature
        self.dim = x.spec.dim
        self.sparse = x.spec.sparse
        self.dtype = x.spec.dtype
        self.batch_ndim = x.spec.rank
        self.dim_tags = x.spec.dims

    @property
    def output(self) -> SourceView:
        """Itself: a layer's output."""
        return self

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Static sizes without batch."""
        return tuple(d.size for d in self._x.spec.dims if not d.is_batch)

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        """Static sizes."""
        return tuple(d.size for d in self._x.spec.dims)

    @property
    def is_batch_major(self) -> bool:
        """Whether the batch axis is the first one."""
        return self.batch_dim_axis == 0

    @property
    def is_time_major(self) -> bool:
        """Whether the time axis is the first one."""
        return self.time_dim_axis == 0

    @property
    def size_placeholder(self) -> dict[int, Any]:
        """Lengths [B] by the position of the axis, counted without batch."""
        dims = [d for d in self._x.spec.dims if not d.is_batch]
        return {i: self._wrap(self._x.length(d).values) for i, d in enumerate(dims) if d.dynamic}

    def get_sequence_lengths(self) -> Any:
        """Lengths [B] of the time axis."""
        if self._x.spec.time_dim is None:
            raise ValueError("the source has no time axis")
        return self._wrap(self._x.length(self._x.spec.time_dim).values)

    def get_sequence_lengths_broadcast(self) -> Any:
        """Lengths of the time axis, shaped to broadcast against `placeholder`."""
        shape = [1] * self._x.spec.rank
        shape[self._x.spec.batch or 0] = -1
        return self.get_sequence_lengths().reshape(shape)

    def copy_as_batch_major(self) -> SourceView:
        """The same with the batch axis first."""
        return SourceView(self._x.batch_major(), self.name, self._wrap)


class NetworkView:
    """The network as eval functions see it."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def get_config(self) -> Any:
        """The config object, for `typed_value`, `float`, `int`, `bool`, `value`."""
        return self._layer.context.config

    @property
    def train_flag(self) -> bool:
        """Whether the network trains."""
        return self._layer.training

    @property
    def global_train_step(self) -> int:
        """Number of training steps so far."""
        return self._layer.context.global_step

    def cond_on_train(self, fn_train: Callable[[], Any], fn_eval: Callable[[], Any]) -> Any:
        """One of two functions' values, by the train flag."""
        return fn_train() if self._layer.training else fn_eval()


class LayerView:
    """The layer itself (`self`) as eval functions see it."""

    def __init__(self, layer: Layer, sources: tuple[Tensor, ...]) -> None:
        self.network = NetworkView(layer)
        self.name = layer.name
        self._sources = sources

    @property
    def sources(self) -> list[SourceView]:
        """The layer's sources."""
        return [SourceView(x, f"{self.name}:source{i}") for i, x in enumerate(self._sources)]
