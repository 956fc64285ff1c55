"""What the construction of deep nets, those of recipes in configs/, costs: function calls are counted, not seconds."""

import gc
import sys
from collections import Counter
from pathlib import Path

import pytest

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.compat.tf import eval_names
from returnn_lite.config import load_config
from returnn_lite.network import Network
from tests.configs import recipe_data

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DEEP = {  # recipe -> what says how deep it is, the real depth, and sizes that cost no time
    "transformer_lm": ("num_layers", 24, {"model_dim": 16, "num_labels": 6}, recipe_data.texts),
    "ctc_conformer": ("num_blocks", 12, {"model_dim": 16, "num_labels": 10}, recipe_data.speech),
    "translation": ("num_layers", 6, {"model_dim": 16}, recipe_data.translations),
}
CALLS_PER_LAYER = 1200  # Python's and C's; about 1000 are needed
RANDOM = ("uniform_", "normal_")


def description(name, folder, options):
    """The recipe's config."""
    settings = {"data_dir": folder, **options}
    return load_config([str(CONFIGS / f"{name}.config")], [(key, str(value)) for key, value in settings.items()])


def counted(config):
    """(the network, how often each function was called while it was constructed)"""
    calls = Counter()

    def count(_frame, event, function):
        if event in ("call", "c_call"):
            calls[function.__name__ if event == "c_call" else "python"] += 1

    gc.collect()
    gc.disable()  # what goes when others are collected is not counted
    sys.setprofile(count)
    try:
        net = Network(config, config.typed_value("network"), eval_names=eval_names)
    finally:
        sys.setprofile(None)
        gc.enable()
    return net, calls


@pytest.mark.parametrize("name", DEEP)
def test_linear_in_the_number_of_layers(name, tmp_path):
    option, depth, sizes, data = DEEP[name]
    data(tmp_path)
    counted(description(name, tmp_path, {option: 1, **sizes}))  # what is remembered for good
    nets = [counted(description(name, tmp_path, {option: n, **sizes})) for n in (depth // 2, depth, 2 * depth)]
    layers = [len(net.layer_modules) for net, _ in nets]
    totals = [calls.total() for _, calls in nets]
    assert layers[2] > 1.9 * layers[1] > 3.5 * layers[0]
    per_layer = [(totals[i + 1] - totals[i]) / (layers[i + 1] - layers[i]) for i in range(2)]
    assert per_layer[1] < 1.1 * per_layer[0]  # caches may be full of what others have left
    assert max(per_layer) < CALLS_PER_LAYER


@pytest.mark.parametrize("name", DEEP)
def test_parameters_are_drawn_once(name, tmp_path):
    option, depth, sizes, data = DEEP[name]
    data(tmp_path)
    net, calls = counted(description(name, tmp_path, {option: depth, **sizes}))
    assert sum(calls[function] for function in RANDOM) <= len(net.params)
