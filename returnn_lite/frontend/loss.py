"""`Loss`: what a training step marks to be minimized or reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.frontend.reduce import reduce_mean, reduce_sum
from returnn_lite.frontend.sizes import num_elements_of_shape
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import Operand


@dataclass(eq=False)
class Loss:
    """A loss under a name. Entries in the padding of its axes do not count.

    custom_inv_norm_factor: what the sum is divided by in place of the number of entries, summed over its axes.
    """

    loss: Tensor
    name: str
    scale: float = 1.0
    as_error: bool = False
    use_normalized_loss: bool = False
    use_flatten_frames: bool = True
    custom_inv_norm_factor: Tensor | None = None
    _sum: Any = None

    def get_summed_loss(self) -> Tensor:
        """The sum over all entries."""
        if self._sum is None:
            self._sum = reduce_sum(self.loss, axis=self.loss.dims) if self.loss.dims else self.loss
        found: Tensor = self._sum
        return found

    def get_mean_loss(self) -> Tensor:
        """The mean over all entries; with a factor of its own the sum divided by it."""
        if self.custom_inv_norm_factor is not None:
            factor = self.get_inv_norm_factor()
            found: Tensor = self.get_summed_loss() / factor._like(factor.raw_tensor.to(self.loss.device))
            return found
        result: Tensor = reduce_mean(self.loss, axis=self.loss.dims) if self.loss.dims else self.loss
        return result

    def get_inv_norm_factor(self) -> Operand:
        """What the sum is divided by: an int, or a tensor."""
        factor = self.custom_inv_norm_factor
        if factor is None:
            return num_elements_of_shape(self.loss.dims)
        return reduce_sum(factor, axis=factor.dims) if factor.dims else factor

    def get_scaled_reduced_loss(self) -> Tensor:
        """What is minimized: the sum, or the mean with `use_normalized_loss`, times `scale`."""
        found = self.get_mean_loss() if self.use_normalized_loss else self.get_summed_loss()
        return found * self.scale if self.scale != 1 else found


def as_loss(value: Tensor) -> Tensor:
    """The values as floats."""
    raw = value.raw_tensor
    return value if raw.is_floating_point() and raw.dtype in _EXACT else value._like(raw.float())


_EXACT = (torch.float32, torch.float64)
