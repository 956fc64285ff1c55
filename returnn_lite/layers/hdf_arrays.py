"""A layer's output as the entries of an HDF file: an array per sequence, without padding, axes before the last flat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from returnn_lite.ops.precision import raised
from returnn_lite.tensor import Spec, Tensor

PACKED = "<->"  # between the tags of an entry that holds several sequences


@dataclass
class Entry:
    """One entry: frames [T, …] (features last), and the sizes of all its axes, without the features or with them."""

    data: np.ndarray
    axes: np.ndarray
    sizes: np.ndarray


@dataclass
class BatchArray:
    """The values of a batch, [B, time, …, features]; without batch axis all sequences have the same.

    `lengths` {axis: int [B]} of the dynamic axes, counted without batch. `spec` is that of the values as they stand.
    """

    values: np.ndarray
    spec: Spec
    lengths: Mapping[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Tensor) -> BatchArray:
        """Copied from the device."""
        x = x.permuted(order(x.spec))
        first = 0 if x.spec.batch is None else 1
        dynamic = {i - first: d for i, d in enumerate(x.spec.dims) if d.dynamic}
        lengths = {i: x.length(d).values.cpu().numpy() for i, d in dynamic.items()}
        data = x.data.detach()
        data = data.float() if data.dtype in (torch.bfloat16, torch.float16) else data
        return cls(raised(data).cpu().numpy(), x.spec, lengths)

    @property
    def dims(self) -> tuple[int, int]:
        """(dim, ndim) of an entry, as HDF files describe their streams."""
        sparse = self.spec.sparse_dim
        if self.has_features:
            return int(self.values.shape[-1]), 2
        return (int(sparse.size) if sparse is not None and sparse.size else 1), 1

    @property
    def has_features(self) -> bool:
        """Whether the last axis stays apart."""
        return self.spec.feature is not None

    def entries(self, count: int) -> Iterator[Entry]:
        """The sequences of a batch of so many."""
        for i in range(count):
            array = self.values if self.spec.batch is None else self.values[i]
            known = {axis: int(lengths[i]) for axis, lengths in self.lengths.items()}
            yield self._entry(array[tuple(slice(known.get(axis)) for axis in range(array.ndim))])

    def whole(self) -> Entry:
        """The whole batch with its padding as one entry."""
        return self._entry(self.values)

    def _entry(self, array: np.ndarray) -> Entry:
        feature = array.shape[-1:] if self.has_features else ()
        axes = array.shape[: array.ndim - len(feature)]
        sizes = np.array([*axes, *feature] or [1], np.int32)
        return Entry(array.reshape((-1, *feature)), np.array(axes, np.int32), sizes)


def order(spec: Spec) -> tuple[int, ...]:
    """The axes as they are written: batch, time, others, features."""
    front = [i for i in (spec.batch, spec.time) if i is not None]
    last = [spec.feature] if spec.feature is not None and spec.feature not in front else []
    return (*front, *(i for i in range(spec.rank) if i not in front and i not in last), *last)
