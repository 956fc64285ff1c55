"""`TensorArray`: tensors of one kind in order, as loops collect them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from returnn_lite.frontend.axes import with_dims
from returnn_lite.frontend.concat import stack
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of, show
from returnn_lite.frontend.tensor import Tensor


class TensorArray:
    """Tensors like `tensor_template`. An array does not change: `push_back` gives a longer one."""

    __slots__ = ("tensor_template", "_items", "_length")

    def __init__(self, tensor_template: Tensor, *, _items: list[Tensor] | None = None) -> None:
        self.tensor_template = tensor_template
        self._items = [] if _items is None else _items
        self._length = len(self._items)

    @classmethod
    def unstack(cls, tensor: Tensor, *, axis: Dim) -> TensorArray:
        """The entries of an axis."""
        at = axis_of(tensor.dims, axis, tensor)
        rest = tensor.dims[:at] + tensor.dims[at + 1 :]
        feature = tensor.feature_dim if tensor.feature_dim_axis != at else None
        items = [with_dims(tensor, raw, rest, feature) for raw in tensor.raw_tensor.unbind(at)]
        return cls(tensor.copy_template_excluding_axis(at), _items=items)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Tensor:
        position = int(index.raw_tensor) if isinstance(index, Tensor) else int(index)
        if not -self._length <= position < self._length:
            raise WrongUse(f"a TensorArray of {self._length} tensors has none at {position}")
        return self._items[position % self._length]

    def __iter__(self) -> Iterable[Tensor]:
        return iter(self._items[: self._length])

    def push_back(self, tensor: Tensor) -> TensorArray:
        """The array with one tensor more. WrongUse if its axes or classes are others than those of the template."""
        template = self.tensor_template
        if tensor.dims_set != template.dims_set or len(tensor.dims) != len(template.dims):
            raise WrongUse(f"tensor {tensor} does not have the axes {show(template.dims)} of the array")
        if (tensor.sparse_dim is None) != (template.sparse_dim is None) or (
            tensor.sparse_dim is not None and tensor.sparse_dim != template.sparse_dim
        ):
            raise WrongUse(f"tensor {tensor} does not have the classes {template.sparse_dim} of the array")
        # The list is shared with this array as long as nothing else was appended to it.
        items = self._items if len(self._items) == self._length else self._items[: self._length]
        items.append(tensor)
        return TensorArray(template, _items=items)

    def stack(self, *, axis: Dim) -> Tensor:
        """All along a new first axis; those after the first in its order of axes."""
        if self._length == 0:
            template = self.tensor_template
            return _empty(template, axis)
        if not axis.is_dim_known():
            axis.declare_same_as(Dim(self._length, name=axis.name))
        found, _ = stack(self._items[: self._length], out_dim=axis)
        first = self._items[0]
        if first.feature_dim is not None:
            found.feature_dim = first.feature_dim
        return found


def _empty(template: Tensor, axis: Dim) -> Tensor:
    if not axis.is_dim_known():
        axis.declare_same_as(Dim(0, name=axis.name))
    dims = (axis, *template.dims)
    raw = torch.zeros([dim.padded_size() for dim in dims], dtype=getattr(torch, template.dtype))
    return with_dims(template, raw, dims, template.feature_dim)
