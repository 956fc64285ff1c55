"""The stages in their order: what each norm is taken over."""

import math

import pytest
import torch

from returnn_lite.optim.gradients import NoiseGenerators
from returnn_lite.optim.groups import GradientOptions
from returnn_lite.optim.process import Norms, process

GRADS = {"small": torch.tensor([0.3, 0.4]), "large": torch.tensor([30.0, 40.0])}  # norms 0.5 and 50
TAGS = {"x": {"small"}, "y": {"large"}}


def processed(**options):
    return process(GRADS, GradientOptions(**options), Norms(GRADS, TAGS), NoiseGenerators(1, 0))


@pytest.mark.parametrize("tag, kept", [("x", True), ("y", False), (None, False)])
def test_clip_to_zero_looks_at_the_tagged_parameters(tag, kept):
    found = processed(grad_norm_to_clip_to_zero=1.0, global_norm_tag=tag)
    for name, grad in found.items():
        assert torch.equal(grad, GRADS[name] if kept else torch.zeros(2))


def test_the_tag_of_clipping_is_not_that_of_clipping_to_zero():
    found = processed(
        grad_norm_to_clip_to_zero=1.0, global_norm_tag="x", gradient_clip_global_norm=5.0,
        gradient_clip_global_norm_tag="y",
    )  # fmt: skip
    for name, grad in found.items():
        assert torch.allclose(grad, GRADS[name] * 5.0 / 50.0)


def test_clipping_goes_by_the_common_tag_without_one_of_its_own():
    found = processed(gradient_clip_global_norm=0.25, global_norm_tag="x")
    for name, grad in found.items():
        assert torch.allclose(grad, GRADS[name] * 0.25 / 0.5)


def test_without_a_tag_the_norm_is_that_of_all():
    found = processed(gradient_clip_global_norm=1.0)
    for name, grad in found.items():
        assert torch.allclose(grad, GRADS[name] / math.hypot(0.5, 50.0))
