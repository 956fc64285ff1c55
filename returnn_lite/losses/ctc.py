"""CTC with the options that a config has for it."""

from __future__ import annotations

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.ops.ctc import collapse_repeated, ctc_loss


def tf_ctc_loss(
    logits: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    *,
    blank: int = -1,
    preprocess_collapse_repeated: bool = False,
    ctc_merge_repeated: bool = True,
    ignore_longer_outputs_than_inputs: bool = False,
) -> Tensor:
    """CTC of logits with the options of TensorFlow's `ctc_loss`. Shape: as `ctc_loss`.

    Sequences with fewer frames than labels: ConfigError, or loss and gradient 0 with ignore_longer_outputs_than_inputs.
    Enough frames for the labels but not for the blanks between equal ones: loss inf.
    """
    if preprocess_collapse_repeated:
        targets, target_lengths = collapse_repeated(targets, target_lengths)
    too_short = lengths < target_lengths
    if not ignore_longer_outputs_than_inputs and too_short.any():
        index = int(too_short.long().argmax())
        raise ConfigError(
            "",
            f"ctc: sequence {index} of the batch has {int(lengths[index])} frames for {int(target_lengths[index])}"
            " labels; `ignore_longer_outputs_than_inputs` skips such sequences",
        )
    loss = ctc_loss(
        logits, lengths, targets, target_lengths, blank=blank, normalized=False, label_loop=ctc_merge_repeated
    )
    return torch.where(too_short.to(loss.device), 0.0, loss)


def zero_infinity(config: Config, behavior: int) -> bool:
    """Whether sequences without a valid alignment have gradient 0, too: from behaviour version 30 on, or by the option
    `tf_native_ctc_zero_infinity`."""
    return behavior >= 30 or bool(config.bool("tf_native_ctc_zero_infinity", False))


def native_ctc_loss(
    values: Tensor,
    lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
    *,
    logits_normalize: bool = True,
    grad_wrt_softmax_in: bool = True,
    label_loop: bool = True,
    ctc_merge_repeated: bool = True,
    blank_index: int = -1,
    zero_infinity: bool = False,
    max_approx: bool = False,
) -> Tensor:
    """CTC with the options of the `ctc` loss with `use_native`, and of the layer ctc_loss. Shape: as `ctc_loss`."""
    return ctc_loss(
        values,
        lengths,
        targets,
        target_lengths,
        blank=blank_index,
        normalized=not logits_normalize,
        label_loop=label_loop and ctc_merge_repeated,
        viterbi=max_approx,
        softmax_grad=grad_wrt_softmax_in,
        impossible="zero" if zero_infinity else "inf" if max_approx else "zero_loss",
    )


def auto_clip_target_lengths(target_lengths: Tensor, lengths: Tensor) -> Tensor:
    """Target lengths cut to one less than the frames, at least 0. Shape: (B,), (B,) -> (B,)"""
    return torch.minimum(target_lengths, (lengths - 1).clamp(min=0).to(target_lengths))
