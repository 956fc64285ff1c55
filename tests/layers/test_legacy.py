"""Options of layers in old configs."""

import pytest

import returnn_lite.catalog  # noqa: F401  (fills the register)
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.registry import layer_class, split_options


def options(**description):
    return split_options(layer_class(description["class"], "x"), description, "x")[1]


def test_old_names_and_options_that_mean_nothing():
    assert options(**{"class": "window", "window": 5}) == {"window_size": 5}
    assert options(**{"class": "batch_norm", "axes": ["f"], "fused": True, "momentum": 0.1}) == {"momentum": 0.1}
    assert options(**{"class": "rec", "unit": "lstmp", "sampling": 1}) == {"unit": "lstmp"}


@pytest.mark.parametrize("description, text", [
    ({"class": "rec", "unit": "lstmp", "sampling": 2}, "has no option 'sampling'"),
    ({"class": "batch_norm", "axes": ["t"]}, "has no option 'axes'"),
    ({"class": "softmax", "sprint_opts": {}}, "has no option 'sprint_opts'; it belongs to losses that an external"),
])  # fmt: skip
def test_others_are_refused(description, text):
    with pytest.raises(ConfigError) as caught:
        options(**description)
    assert text in str(caught.value)
