"""Frame-wise losses on values and logits: `bin_ce`, `generic_ce`, `mean_l1`, `l1`."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import FrameLoss, loss
from returnn_lite.ops.cross_entropy import share_cross_entropy
from returnn_lite.tensor import Tensor


def _dense(target: Tensor, name: str) -> torch.Tensor:
    if target.spec.sparse:
        raise ConfigError("loss", f"`{name}` needs a dense target, but gets {target.spec}")
    return target.data


@loss("bin_ce", "sse_sigmoid")
class BinaryCrossEntropy(FrameLoss):
    """Mean over features of -w t log s(z) - (1 - t) log(1 - s(z)), s the sigmoid, z the output, w `pos_weight`.

    The output must be logits: a layer without activation. Error: mean over features of (z > 0) != (t > 0.5).
    """

    def __init__(self, *, pos_weight: float | None = None) -> None:
        self.pos_weight = pos_weight

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """Mean over the features."""
        weight = None if self.pos_weight is None else output.data.new_tensor(float(self.pos_weight))
        wanted = _dense(target, "bin_ce").to(output.data.dtype)
        each = F.binary_cross_entropy_with_logits(output.data, wanted, pos_weight=weight, reduction="none")
        return each.mean(-1)

    def errors(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """Share of wrong features."""
        return ((output.data > 0) != (target.data > 0.5)).to(torch.float32).mean(-1)


@loss("generic_ce")
class GenericCrossEntropy(FrameLoss):
    """-log(y[target] / sum y) for an output y of any activation; gradient (d log y / dx) * (y / sum y -
    onehot(target)).

    x is the value before the activation.
    """

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """One value per frame."""
        if not target.spec.sparse:
            raise ConfigError("loss", f"`generic_ce` needs a sparse target, but gets {target.spec}")
        return share_cross_entropy(output.data, target.data.to(torch.int64))


@loss("l1")
class L1(FrameLoss):
    """Sum over features of |y - t|, for a dense target."""

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """Sum over the features."""
        return (output.data - _dense(target, "l1")).abs().sum(-1)


@loss("mean_l1")
class MeanL1(FrameLoss):
    """Mean over features of |y - t|, for a dense target."""

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """Mean over the features."""
        return (output.data - _dense(target, "mean_l1")).abs().mean(-1)
