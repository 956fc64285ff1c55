"""The mean of all that was seen, with less weight on what is long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.reduce import reduce_mean
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.tensor import Tensor

if TYPE_CHECKING:
    from returnn_lite.frontend.dim import Dim


class RunningMean(Module):
    """mean += alpha · (mean of the batch - mean), in training; over all axes but `in_dim` (one or several).

    is_prob_distribution: it starts with 1 / size, not 0; by default where the type is float and this is asked for.
    """

    def __init__(
        self,
        in_dim: Any,
        *,
        alpha: float,
        dtype: str | None = None,
        is_prob_distribution: bool | None = None,
        update_only_in_train: bool = True,
    ) -> None:
        self.shape: tuple[Dim, ...] = tuple(in_dim) if isinstance(in_dim, list | tuple) else (in_dim,)
        self.in_dim, self.alpha = in_dim, alpha
        self.is_prob_distribution = bool(is_prob_distribution)
        self.update_only_in_train = update_only_in_train
        self.mean = Parameter(self.shape, dtype, auxiliary=True)
        if self.is_prob_distribution:
            self.mean.initial = 1.0 / (self.shape[0].dimension or 1)

    def __call__(self, x: Tensor) -> Tensor:
        """The mean after this batch."""
        if not self.update_only_in_train or get_run_ctx().is_train_flag_enabled(func=RunningMean.__call__):
            others = [dim for dim in x.dims if dim not in self.shape]
            mean = reduce_mean(x, axis=others) if others else x
            self.mean.assign_add((mean - self.mean) * self.alpha)
        return self.mean
