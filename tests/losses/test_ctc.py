"""CTC with the options of configs: what becomes of sequences without an alignment, and targets that are cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from returnn_lite.errors import ConfigError
from returnn_lite.losses.ctc import auto_clip_target_lengths, native_ctc_loss, tf_ctc_loss


def random_logits() -> Tensor:
    """(2, 3, 4)"""
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))


def impossible_sequence() -> dict[str, Tensor]:
    """Two equal labels in two frames, and a sequence that fits."""
    return {
        "lengths": torch.tensor([2, 2]),
        "targets": torch.tensor([[1, 1], [1, 2]]),
        "target_lengths": torch.tensor([2, 2]),
    }


@pytest.mark.parametrize(
    ("options", "loss_is_zero", "grad_is_zero"),
    [({}, True, False), ({"zero_infinity": True}, True, True), ({"max_approx": True}, False, False)],
)
def test_impossible_native(options: dict[str, bool], loss_is_zero: bool, grad_is_zero: bool) -> None:
    logits = random_logits().requires_grad_()
    loss = native_ctc_loss(logits, **impossible_sequence(), **options)
    assert loss[0] == (0.0 if loss_is_zero else math.inf)
    assert loss[1] > 0 and loss[1].isfinite()
    loss[0].backward()
    wanted = torch.zeros_like(logits) if grad_is_zero else logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad[0, :2], wanted[0, :2])
    assert not logits.grad[0, 2:].any() and not logits.grad[1].any()


def test_impossible_tf() -> None:
    logits = random_logits().requires_grad_()
    data = impossible_sequence()
    assert tf_ctc_loss(logits, **data)[0].isinf()
    assert tf_ctc_loss(logits, **data, ctc_merge_repeated=False)[0].isfinite()
    assert tf_ctc_loss(logits, **data, preprocess_collapse_repeated=True)[0].isfinite()
    data["lengths"] = torch.tensor([1, 2])
    with pytest.raises(ConfigError, match="sequence 0 of the batch has 1 frames for 2 labels"):
        tf_ctc_loss(logits, **data)
    loss = tf_ctc_loss(logits, **data, ignore_longer_outputs_than_inputs=True)
    loss.sum().backward()
    assert loss[0] == 0 and loss[1] > 0
    assert not logits.grad[0].any() and logits.grad[1].any()


def test_targets_are_cut_to_the_frames() -> None:
    clipped = auto_clip_target_lengths(torch.tensor([3, 3, 2], dtype=torch.int32), torch.tensor([7, 2, 0]))
    assert clipped.tolist() == [3, 1, 0] and clipped.dtype == torch.int32
