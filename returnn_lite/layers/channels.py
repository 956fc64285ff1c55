"""Channels in the batch axis: `split_concatenated_multichannel`, `batch_median_pooling`."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import describe


class _OverBatch(Layer):
    """Base of layers that change the size of the batch axis, which they put in front."""

    recurrent = True

    def _order(self, x: Spec) -> tuple[int, ...]:
        if x.batch is None:
            raise self.error(f"the source needs a batch axis, but is {describe(x)}")
        return x.order(x.batch)


@layer("split_concatenated_multichannel")
class SplitConcatenatedMultichannel(_OverBatch):
    """The features of `nr_of_channels` channels as entries of the batch.  Shape: (B, T, C * F) -> (B * C, T, F)

    The channels of a sequence are consecutive.
    """

    def __init__(self, *, nr_of_channels: PositiveInt = 1) -> None:
        super().__init__()
        self.channels = nr_of_channels

    def spec(self, x: Spec | None) -> Spec | None:
        """Batch in front, the features of one channel."""
        if x is None:
            return None
        if x.feature is None or not x.dim or x.dim % self.channels:
            text = f"`nr_of_channels` must divide the number of features, but is {self.channels}"
            raise self.error(f"{text}; the source: {describe(x)}")
        x = x.permuted(self._order(x))
        return x.with_feature(x.dims[x.feature or 0] // self.channels)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The channels."""
        x, spec = sources[0].permuted(self._order(sources[0].spec)), self.made_spec(sources[0].spec)
        at, feature = x.spec.batch or 0, x.spec.feature or 0
        data = x.data.unflatten(feature, (self.channels, -1)).movedim(feature, at + 1).flatten(at, at + 1)
        return x.with_lengths({d: n.repeated(1, self.channels) for d, n in x.lengths.items()}).with_data(data, spec)


@layer("batch_median_pooling")
class BatchMedianPooling(_OverBatch):
    """The median over groups of `pool_size` neighbouring entries of the batch.  Shape: (B * n, T, F) -> (B, T, F)

    Of an even number, the mean of the two in the middle. The lengths are those of the first of each group.
    """

    def __init__(self, *, pool_size: PositiveInt = 1) -> None:
        super().__init__()
        self.pool_size = pool_size

    def spec(self, x: Spec | None) -> Spec | None:
        """Batch in front."""
        return None if x is None else x.permuted(self._order(x))

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The medians."""
        x = sources[0].permuted(self._order(sources[0].spec))
        at, size = x.spec.batch or 0, self.pool_size
        if x.data.shape[at] % size:
            text = f"`pool_size` must divide the number of sequences, {x.data.shape[at]}, but is {size}"
            raise self.error(text)
        ordered = x.data.unflatten(at, (-1, size)).sort(at + 1).values
        middle = [(size - 1) // 2, size // 2]
        data = ordered.index_select(at + 1, torch.tensor(middle, device=x.device)).mean(at + 1)
        return x.with_lengths({d: n.every(size) for d, n in x.lengths.items()}).with_data(data)
