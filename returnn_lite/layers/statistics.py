"""`accumulate_mean`: a mean over all of training; and layers that only show something."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt, Share
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.reductions import reduce
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.masked import mask_all


@layer("accumulate_mean")
class AccumulateMean(Layer):
    """The running mean v over valid frames, v <- v + exp_average * (mean - v) in every training step.

    Shape: (B, T, F) -> (F,)

    Parameter: `mean_1` (F,), at first `initial_value`, or 1 / F with `is_prob_distribution`; it gets no gradient. The
    output is the value before the step's update.
    """

    full_precision = True

    def __init__(
        self,
        *,
        exp_average: Share,
        axes: AxisText = "bt",
        initial_value: float | None = None,
        is_prob_distribution: bool | None = None,
    ) -> None:
        super().__init__()
        self.exp_average = exp_average
        self.axes = axes
        self.initial_value = initial_value
        self.is_prob_distribution = bool(is_prob_distribution)

    def _reduced(self, x: Spec) -> tuple[int, ...]:
        """The axes that the mean is over, loop axes among them."""
        named = find_axes(x, self.axes, option="axes")
        return tuple(i for i, d in enumerate(x.dims) if i in named or d in x.loop)

    def spec(self, x: Spec | None) -> Spec | None:
        """What is left of the axes: the features."""
        if x is None:
            return None
        left = [d for i, d in enumerate(x.dims) if i not in self._reduced(x)]
        if x.sparse or x.feature is None or left != [x.dims[x.feature]]:
            raise self.error(f"`axes` must be all axes but the features, but is {self.axes!r} for {x}")
        return Spec(left, x.dtype, time=None, feature=0)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`mean_1`."""
        size = sources[0].dim or 1
        initial = self.initial_value
        if initial is None:
            initial = 1.0 / size if self.is_prob_distribution else 0.0
        self.mean = self.param("mean_1", (size,), initial, trainable=False)

    def forward(self, x: Tensor) -> Tensor:
        """The value so far."""
        before = self.mean.detach().clone()
        if self.training:
            self.mean.data.add_(self.exp_average * (self._mean(x) - before))
        return x.with_data(before, self.spec(x.spec))

    def _mean(self, x: Tensor) -> torch.Tensor:
        axes = self._reduced(x.spec)
        return reduce(x.data.detach(), "mean", axes, mask_all(x, axes))


@layer("framewise_statistics")
class FramewiseStatistics(Layer):
    """The source itself; `sil_label_idx` and `histogram_num_bins` have no effect."""

    full_precision = True
    sources = "many"

    def __init__(self, *, sil_label_idx: int = 0, histogram_num_bins: PositiveInt = 20) -> None:
        super().__init__()

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The first source."""
        return sources[0]


@layer("image_summary")
class ImageSummary(Layer):
    """The source itself; no image is shown."""

    def __init__(self, *, max_outputs: PositiveInt = 3) -> None:
        super().__init__()

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source."""
        return sources[0]
