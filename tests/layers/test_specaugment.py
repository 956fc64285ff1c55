"""SpecAugment as a layer: what it hides, when, and how much of it at which training step."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import network

FEATURES = 20
EXTERN = {"data": {"dim": FEATURES}}


def augmented(step=5000, lengths=(200, 200, 100), train=True, **options):
    """(3, 200, 20) of ones, augmented."""
    net = network({"output": {"class": "specaugment", "from": "data", **options}}, EXTERN).train(train)
    net.context.global_step = step
    net.seed(3)
    data = {"data": torch.ones(len(lengths), max(lengths), FEATURES)}
    return net(data, {"data": torch.tensor(lengths)})["output"].data


def test_nothing_outside_of_training():
    assert bool((augmented(train=False) == 1).all())


def test_stretches_of_frames_and_features():
    x = augmented(max_consecutive_spatial_dims=7)
    frames, features = (x == 0).all(2), (x == 0).all(1)
    assert frames.any(1).all() and features.any(1).all()  # in every sequence
    assert bool(((x == 0) == (frames.unsqueeze(2) | features.unsqueeze(1))).all())  # and nothing else is hidden
    assert not torch.equal(frames[0], frames[1])  # each has its own


def test_more_with_later_steps():
    hidden = [float((augmented(step) == 0).float().mean()) for step in (0, 1000, 2000)]
    assert 0 <= hidden[0] < hidden[2]
    none = augmented(0, steps=(10, 20, 30))
    assert bool((none == 1).all())


def test_widths_of_zero_leave_an_axis_alone():
    frames = augmented(max_consecutive_feature_dims=0)
    assert bool(((frames == 0).all(2) == (frames == 0).any(2)).all())
    features = augmented(max_consecutive_spatial_dims=0)
    assert bool(((features == 0).all(1) == (features == 0).any(1)).all())


@pytest.mark.parametrize("options, message", [
    ({"steps": (0, 1000)}, "`steps` must be three training steps, but is (0, 1000) instead"),
    ({"axis": "F"}, "the source must have a batch axis, frames and features"),
    ({"max_consecutive_spatial_dims": -1}, "`max_consecutive_spatial_dims` must be an int from 0"),
])  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        augmented(**options)
    assert message in str(caught.value)
