"""Frame-wise losses: cross-entropy in all its variants, squared error, and the output itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.config.option_types import NaturalFloat
from returnn_lite.errors import ConfigError
from returnn_lite.layers.activations import safe_log
from returnn_lite.losses.base import FrameLoss, Loss, LossSum, frame_error, loss, masked_sum, wrong_frames
from returnn_lite.ops.cross_entropy import dense_cross_entropy, pick, smoothed_cross_entropy, summed_cross_entropy
from returnn_lite.ops.gradients import reported_as
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.masked import mask_all


@loss("ce")
class CrossEntropy(Loss):
    """Cross-entropy: -log p[target] (sparse target) or -sum t log p (dense), natural log, summed over frames.

    On the logits where the layer's activation is softmax; else on safe_log of the output. `label_smoothing` e: the
    right class gets 1 - e, the others e / (V - 1), minus the entropy of that distribution;
    `label_smoothing_gaussian`: a normal density around the target with standard deviation 1 - e. `focal_loss_factor`
    g: times (1 - p[target])^g (Lin et al. 2017). `fake_upper_bound` u: reports min(loss, u) with the gradient of the
    loss.
    """

    def __init__(
        self,
        *,
        input_type: str = "prob",
        focal_loss_factor: NaturalFloat = 0.0,
        label_smoothing: float = 0.0,
        label_smoothing_gaussian: bool = False,
        use_fused: bool = True,
        safe_log_opts: Mapping[str, Any] | None = None,
        fake_upper_bound: float | None = None,
        debug_dump: bool = False,
    ) -> None:
        if input_type not in ("prob", "logits"):
            raise ConfigError("loss_opts", f'`input_type` must be "prob" or "logits", but is {input_type!r} instead')
        self.input_type = input_type
        self.focal = focal_loss_factor
        self.smoothing = label_smoothing
        self.gaussian = label_smoothing_gaussian
        self.use_fused = use_fused
        self.safe_log_opts = dict(safe_log_opts or {})
        self.upper_bound = fake_upper_bound

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Sum over valid frames, and the number of frames with a wrong best class."""
        if target is None:
            raise ConfigError("loss", "`ce` needs a target")
        logits = self._logits(output)
        plain = not (self.focal or self.smoothing or self.upper_bound)
        if logits is not None and plain and target.spec.sparse:
            valid = mask_all(output)
            if valid is not None:
                valid = valid.reshape(valid.shape[: target.data.dim()])
            value = summed_cross_entropy(logits, target.data, valid)
        else:
            value = masked_sum(self._general(logits, target, output), output)
        return LossSum(value, frame_error(output, target))

    def per_frame(self, output: Tensor, target: Tensor | None) -> LossSum:
        """Value and error of every frame."""
        if target is None:
            raise ConfigError("loss", "`ce` needs a target")
        return LossSum(self._general(self._logits(output), target, output), wrong_frames(output, target))

    def _logits(self, output: Tensor) -> torch.Tensor | None:
        """The values before a softmax, if there are any."""
        if self.input_type == "logits":
            return output.data
        if self.use_fused and output.pre is not None and output.pre.activation == "softmax":
            return output.pre.data
        return None

    def _general(self, logits: torch.Tensor | None, target: Tensor, output: Tensor) -> torch.Tensor:
        log_probs = safe_log(output.data, **self.safe_log_opts) if logits is None else F.log_softmax(logits, -1)
        if not target.spec.sparse and logits is not None:
            value = dense_cross_entropy(logits, target.data)
        elif not target.spec.sparse:
            value = -(target.data * log_probs).sum(-1)
        elif self.smoothing:
            value = smoothed_cross_entropy(log_probs, target.data, self.smoothing, gaussian=self.gaussian)
        else:
            value = -pick(log_probs, target.data)
        if self.focal:
            value = value * (1.0 - pick(log_probs, target.data).exp()) ** self.focal
        if self.upper_bound is not None:
            value = reported_as(value.clamp(max=self.upper_bound), value)
        return value


@loss("mse")
class MeanSquaredError(FrameLoss):
    """Mean over features of (y - t)^2, summed over frames; a sparse target counts as one-hot."""

    def values(self, output: Tensor, target: Tensor) -> torch.Tensor:
        """Mean over the features."""
        wanted = target.data
        if target.spec.sparse:
            wanted = F.one_hot(wanted.to(torch.int64), output.shape[-1]).to(output.data.dtype)
        return (output.data - wanted).square().mean(-1)


@loss("as_is")
class AsIs(Loss):
    """The sum of the output itself over valid frames; with `as_error` reported as error instead of loss."""

    needs_target = False

    def __init__(self, *, as_error: bool = False) -> None:
        self.as_error = as_error

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """The sum, as value or error."""
        total = masked_sum(output.data.to(torch.float32), output)
        return LossSum(None, total) if self.as_error else LossSum(total, None)
