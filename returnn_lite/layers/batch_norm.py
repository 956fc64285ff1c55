"""`batch_norm`: normalisation by the statistics of the batch, as a layer."""

from __future__ import annotations

from typing import Any

from returnn_lite.config.option_types import NaturalFloat, Share
from returnn_lite.layers.batch_statistics import BatchStatistics
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Spec, Tensor


@layer("batch_norm")
class BatchNorm(Layer):
    """y = (x - mu) / sqrt(var + epsilon) * gamma + beta, statistics over all axes but the features.

    Shape: any -> the same

    Options and defaults: `BatchStatistics`. Parameters below "batch_norm/", named by `param_version`; the running
    values are parameters that are not trained. With `masked_time` False the frames after the sequence ends count.
    """

    full_precision = True
    sees_batch = True

    def __init__(
        self,
        *,
        use_shift: bool = True,
        use_std: bool = True,
        use_sample: Share = 0.0,
        force_sample: bool = False,
        momentum: Share | None = None,
        epsilon: NaturalFloat = 1e-3,
        update_sample_only_in_training: bool | None = None,
        delay_sample_update: bool | None = None,
        param_version: int | None = None,
        gamma_init: Any = 1.0,
        beta_init: Any = 0.0,
        masked_time: bool | None = None,
    ) -> None:
        super().__init__()
        self.given: dict[str, Any] = {
            "use_shift": use_shift,
            "use_std": use_std,
            "use_sample": use_sample,
            "force_sample": force_sample,
            "momentum": momentum,
            "epsilon": epsilon,
            "update_sample_only_in_training": update_sample_only_in_training,
            "delay_sample_update": delay_sample_update,
            "param_version": param_version,
            "gamma_init": gamma_init,
            "beta_init": beta_init,
            "masked_time": masked_time,
        }

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """Scale, shift and running values."""
        self.statistics = BatchStatistics(self.behavior, **self.given)
        self.statistics.build(self, sources[0])

    def forward(self, x: Tensor) -> Tensor:
        """The normalised source."""
        return x.with_data(self.statistics.normalised(x, self.training))
