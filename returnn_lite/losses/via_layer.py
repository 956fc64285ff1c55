"""`via_layer`: a loss whose value and gradient another layer gives."""

from __future__ import annotations

from typing import ClassVar

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import Loss, LossSum, frame_error, loss
from returnn_lite.ops.gradients import with_gradient
from returnn_lite.tensor import Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.masked import mask_all


@loss("via_layer")
class ViaLayer(Loss):
    """The loss per sequence that a layer such as `fast_bw` keeps, summed; its gradient is defined by that layer.

    With `align_layer` A the gradient of the output y is y - A, with `error_signal_layer` E it is E; 0 after the
    sequence ends. `loss_wrt_to_act_in`: it is the gradient before the activation (True, or the name of the
    activation).
    """

    recurrent = True
    needs_target = False
    layer_options: ClassVar[tuple[str, ...]] = ("error_signal_layer", "align_layer")

    def __init__(
        self,
        *,
        error_signal_layer: str | None = None,
        align_layer: str | None = None,
        loss_wrt_to_act_in: bool | str = False,
    ) -> None:
        if (error_signal_layer is None) == (align_layer is None):
            raise ConfigError("loss_opts", "`via_layer` needs one of `align_layer` and `error_signal_layer`")
        self.before_activation = loss_wrt_to_act_in

    def compute(self, output: Tensor, target: Tensor | None) -> LossSum:
        """The layer's loss; frame error if there is a target."""
        ((option, other),) = self.layers.items()
        if other.sequence_loss is None:
            text = f"`{option}` must be a layer that has a loss per sequence, as `fast_bw`, but gives only {other.spec}"
            raise ConfigError("loss_opts", text)
        signal = place(other, output.spec)
        if option == "align_layer":
            signal = output.data - signal
        valid = mask_all(output)
        if valid is not None:
            signal = torch.where(valid, signal, torch.zeros((), dtype=signal.dtype, device=signal.device))
        value = with_gradient(self._wrt(output), other.sequence_loss.sum().detach(), signal.detach())
        return LossSum(value, frame_error(output, target) if target is not None else None)

    def _wrt(self, output: Tensor) -> torch.Tensor:
        """What the gradient belongs to."""
        if not self.before_activation:
            return output.data
        name = output.pre.activation if output.pre is not None else None
        wanted = self.before_activation
        if output.pre is None or (isinstance(wanted, str) and name != wanted):
            text = f"`loss_wrt_to_act_in` must be the activation of the layer, {name!r}, but is {wanted!r} instead"
            raise ConfigError("loss_opts", text)
        return output.pre.data
