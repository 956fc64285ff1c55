"""Augmentation of features: `specaugment`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from returnn_lite.config.option_types import NaturalInt
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops import specaugment as ops
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText, axis


@layer("specaugment")
class SpecAugment(Layer):
    """In training sets random stretches of frames and features to 0 (Park et al. 2019).  Shape: (B, T, F) -> (B, T, F)

    They differ by sequence; their number increases at each of the training steps `steps`. `axis`: the frames.
    `max_consecutive_spatial_dims`, `max_consecutive_feature_dims` (default: a fifth of the features): the widest
    stretches, 0 for none. `num_spatial_mask_factor`: frames for each stretch. The same as `rf.audio.specaugment`; the
    reference has no such layer.
    """

    def __init__(
        self,
        *,
        axis: AxisText = "T",
        max_consecutive_spatial_dims: NaturalInt = 20,
        max_consecutive_feature_dims: NaturalInt | None = None,
        num_spatial_mask_factor: NaturalInt = 100,
        steps: Sequence[int] = (0, 1000, 2000),
    ) -> None:
        super().__init__()
        self.axis = axis
        self.widest_frames = max_consecutive_spatial_dims
        self.widest_features = max_consecutive_feature_dims
        self.frames = num_spatial_mask_factor
        self.steps = steps

    def spec(self, x: Spec | None) -> Spec | None:
        """The source's axes; it must have batch, frames and features."""
        if x is None:
            return None
        if len(self.steps) != 3:
            raise self.error(f"`steps` must be three training steps, but is {self.steps!r} instead")
        if x.batch is None or x.feature is None or axis(x, self.axis) == x.feature:
            raise self.error(f"the source must have a batch axis, frames and features, but is {x}")
        return x

    def forward(self, x: Tensor) -> Tensor:
        """The source; in training with its stretches at 0."""
        if not self.training:
            return x
        stage = ops.stages(self.context.global_step, self.steps)
        frames, features = axis(x.spec, self.axis), axis(x.spec, "F")
        lengths = sequence_lengths(x, frames)
        data = x.data
        if self.frames and self.widest_frames:
            counts = ops.time_stretches(lengths, self.frames, stage)
            data = self._hidden(x.with_data(data), frames, lengths, *counts, self.widest_frames)
        size = data.shape[features]
        widest = ops.widest_features(size) if self.widest_features is None else self.widest_features
        if widest:
            counts = ops.feature_stretches(stage)
            data = self._hidden(x.with_data(data), features, torch.full_like(lengths, size), *counts, widest)
        return x.with_data(data, zero_padded=x.zero_padded)

    def _hidden(
        self,
        x: Tensor,
        along: int,
        lengths: torch.Tensor,
        fewest: torch.Tensor | int,
        most: torch.Tensor | int,
        widest: int,
    ) -> torch.Tensor:
        """The data with random stretches of an axis at 0, others for each sequence."""
        size, batch = x.data.shape[along], axis(x.spec, "B")
        generator = self.context.generator
        hidden = ops.random_stretches(lengths, size, fewest=fewest, most=most, max_width=widest, generator=generator)
        shape = [n if i in (batch, along) else 1 for i, n in enumerate(x.data.shape)]
        return x.data.masked_fill((hidden if batch < along else hidden.T).reshape(shape), 0.0)


def sequence_lengths(x: Tensor, frames: int) -> torch.Tensor:
    """Lengths of an axis.  Shape: (B, T, F) -> (B,)"""
    dim = x.spec.dims[frames]
    if dim.dynamic:
        return x.length(dim).values
    return torch.full((x.data.shape[axis(x.spec, "B")],), x.data.shape[frames], device=x.data.device)
