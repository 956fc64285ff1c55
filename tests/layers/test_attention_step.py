"""Attention of one query per sequence is its formula; the same at each frame of a loop."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

KEYS = {"data": {"dim": 4}, "base": {"dim": 3}, "context": {"dim": 4}, "query": {"shape": (4,), "time_dim_axis": None}}
KEYS["where"] = {"shape": (1,), "time_dim_axis": None}
LENGTHS = {"data": [4, 2, 3], "base": [5, 3, 4], "context": [5, 3, 4]}


def outputs(layer, source, name="output"):
    """The layer outside of loops; its data."""
    net = randomised(network({"output": {**layer, "from": f"data:{source}"}}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    return net(data, lengths)["output"].data, data, net


def contexts(class_name, **more):
    same = {"class": "reinterpret_data", "from": "data:context", "size_base": "data:base"}
    layers = {"context": same, "output": {"class": class_name, "base": "data:base", "base_ctx": "context", **more}}
    net = randomised(network({**layers, "output": {**layers["output"], "from": "data:query"}}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    return net(data, lengths)["output"].data, data, net


def weighted(energies, frames):
    return energies.softmax(-1) @ frames


def test_dot_attention():
    found, data, _ = contexts("dot_attention", energy_factor=0.5)
    for b, n in enumerate(LENGTHS["base"]):
        energies = data["context"][b, :n] @ data["query"][b] * 0.5
        torch.testing.assert_close(found[b], weighted(energies, data["base"][b, :n]))


def test_concat_attention():
    found, data, net = contexts("concat_attention")
    for b, n in enumerate(LENGTHS["base"]):
        energies = (data["context"][b, :n] + data["query"][b]).tanh() @ net.params["output/v"]
        torch.testing.assert_close(found[b], weighted(energies, data["base"][b, :n]))


def gauss(place, frames, size, std):
    """The sum of the frames around `place`."""
    start = round(place) - size // 2  # Python rounds halves to even numbers, too
    total = torch.zeros(frames.shape[1])
    for p in range(start, start + size):
        weight = math.exp(-((place - p) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
        total += weight * frames[min(max(p, 0), len(frames) - 1)]
    return total


@pytest.mark.parametrize("place", [-2.0, 0.5, 1.5, 2.3, 9.0])
def test_gauss_window_attention(place):
    layer = {"class": "gauss_window_attention", "base": "data:base", "window_size": 3, "std": 0.7}
    net = network({"output": {**layer, "from": "data:where"}}, KEYS)
    data, lengths = batch(KEYS, LENGTHS)
    data["where"] = torch.full((3, 1), place)
    found = net(data, lengths)["output"].data
    for b, n in enumerate(LENGTHS["base"]):
        torch.testing.assert_close(found[b], gauss(place, data["base"][b, :n], 3, 0.7))


def test_gauss_windows_side_by_side():
    layer = {"class": "gauss_window_attention", "base": "data:base", "window_size": 2, "inner_size": 3}
    found, data, _ = outputs(layer, "where")
    for b, n in enumerate(LENGTHS["base"]):
        for i in range(3):
            place = float(data["where"][b]) + i * 0.5 - 1.5
            torch.testing.assert_close(found[b, i], gauss(place, data["base"][b, :n], 2, 1.0))


@pytest.mark.parametrize("name", ["dot_attention", "concat_attention", "gauss_window_attention"])
def test_in_and_out_of_a_loop_the_numbers_are_equal(name):
    layer = {"class": name, "base": "base:data:base"}
    if name == "gauss_window_attention":
        layer |= {"window_size": 3, "from": "place"}
    else:
        layer |= {"base_ctx": "base:context", "from": "query"}
    unit = {
        "query": {"class": "linear", "n_out": 4, "from": "data:source", "activation": "tanh"},
        "place": {"class": "linear", "n_out": 1, "from": "query"},
        "output": layer,
    }
    found = []
    for optimize in (True, False):
        loop = {"class": "rec", "from": "data:data", "unit": unit, "optimize_move_layers_out": optimize}
        same = {"class": "reinterpret_data", "from": "data:context", "size_base": "data:base"}
        net = randomised(network({"context": same, "output": loop}, KEYS))
        assert bool(net.program.names["output"].layer.program.plan.inside) != optimize
        found.append(net(*batch(KEYS, LENGTHS))["output"].data)
    torch.testing.assert_close(found[0], found[1])


def test_queries_with_time_are_refused():
    layer = {"class": "dot_attention", "base": "data:base", "base_ctx": "data:base"}
    with pytest.raises(ConfigError, match="the source must be one query per sequence"):
        outputs(layer, "base")
