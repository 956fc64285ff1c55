"""Sizes for layers that make tensors from nothing: the batch, and the lengths of axes that the present batch knows."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import first_beam


class MadeSizes:
    """What a layer without sources can know: the data of the batch, and the layers `deps` it refers to."""

    def __init__(self, layer: Layer, deps: Iterable[Tensor] = ()) -> None:
        feed = layer.context.run.data
        self.layer = layer
        self.deps = list(deps)
        self.known = [*self.deps, *feed.values()]
        self.lengths: dict[Dim, Lengths] = {}
        for x in self.known:
            for dim, lengths in x.lengths.items():
                self.lengths.setdefault(dim, lengths)

    @property
    def batch(self) -> int:
        """Number of sequences. Raises ConfigError if no data tells."""
        for x in self.known:
            if x.spec.batch is not None:
                return int(x.data.shape[x.spec.batch])
        batch = self.layer.context.run.batch
        if batch is None:
            raise ConfigError(self.layer.path, "the number of sequences is not known, because the batch is empty")
        return int(batch)

    @property
    def device(self) -> torch.device:
        """Where to make tensors."""
        known: torch.Tensor = self.known[0].data if self.known else next(self.layer.parameters(), torch.empty(0))
        return known.device

    def shape(self, spec: Spec) -> tuple[int, ...]:
        """The sizes of a tensor with these axes. Raises ConfigError for an axis whose lengths nobody knows."""
        return tuple(self._size(d) for d in spec.dims)

    def _size(self, dim: Dim) -> int:
        if dim.is_batch:
            return self.batch
        if dim.size is not None:
            return dim.size
        try:
            return self.tensor(torch.empty(0), Spec(())).length(dim).max
        except KeyError:
            text = f"the lengths of axis {dim} are not known; name a layer that has this axis in `shape_deps`"
            raise ConfigError(self.layer.path, text) from None

    def tensor(self, data: torch.Tensor, spec: Spec) -> Tensor:
        """A Tensor that knows these lengths."""
        beam = first_beam(self.deps)
        return Tensor(torch.empty(0), Spec(()), self.lengths, beam).with_data(data, spec)
