"""`reuse_params` in all its forms, shared scopes, and parameters with noise."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

EXTERN = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [5, 3, 4], "classes": [5, 3, 4]}


def run(net, train=False):
    net.train(train)
    data, lengths = batch(EXTERN, LENGTHS)
    return net(data, lengths)


def test_custom_gives_a_transposed_embedding_and_its_gradient():
    def transposed(reuse_layer, **_):
        return reuse_layer.params["W"].t()

    reuse = {"map": {"W": {"custom": transposed, "reuse_layer": "embed"}, "b": None}}
    net = randomised(network({
        "embed": {"class": "linear", "n_out": 4, "with_bias": False, "from": "data:classes"},
        "output": {"class": "linear", "n_out": 5, "from": "embed", "reuse_params": reuse, "loss": "as_is"},
    }, EXTERN))  # fmt: skip
    assert set(net.params) == {"embed/W", "output/b"}
    out = run(net, train=True)
    data, _ = batch(EXTERN, LENGTHS)
    W, b = net.params["embed/W"], net.params["output/b"]
    torch.testing.assert_close(out["output"].data, W[data["classes"].long()] @ W.t() + b)
    (grad,) = torch.autograd.grad(out.objective, [W])
    W.data *= 2.0
    again = run(net)["output"].data
    torch.testing.assert_close(again, W[data["classes"].long()] @ W.t() + b)
    assert bool(grad.any())


def test_custom_of_another_shape_is_an_error():
    reuse = {
        "map": {"W": {"custom": lambda reuse_layer, **_: reuse_layer.params["W"], "reuse_layer": "embed"}, "b": None}
    }
    with pytest.raises(ConfigError, match="reuse_params"):
        network({
            "embed": {"class": "linear", "n_out": 4, "from": "data:classes"},
            "output": {"class": "linear", "n_out": 5, "from": "embed", "reuse_params": reuse},
        }, EXTERN)  # fmt: skip


def test_the_getter_makes_a_parameter_of_another_shape():
    def custom(getter, shape, **_):
        return getter(shape=shape[::-1]).t()

    net = network(
        {
            "output": {
                "class": "linear",
                "n_out": 3,
                "from": "data",
                "reuse_params": {"map": {"W": {"custom": custom}, "b": None}},
            }
        },
        EXTERN,
    )
    assert tuple(net.params["output/W"].shape) == (3, 4)
    assert run(net)["output"].data.shape == (3, 5, 3)


def test_a_layer_output_as_parameter_with_its_axes_in_another_order():
    shape = (4, 3)
    net = randomised(network({
        "v": {"class": "linear", "n_out": 4, "from": "data", "with_bias": False},
        "w": {"class": "variable", "shape": (3, 4)},
        "output": {"class": "linear", "n_out": 3, "from": "v", "with_bias": False,
                   "reuse_params": {"map": {"W": {"layer_output": "w", "shape": shape}}}},
    }, EXTERN))  # fmt: skip
    out = run(net)
    torch.testing.assert_close(out["output"].data, out["v"].data @ net.params["w/w"].t())


@pytest.mark.parametrize("first", ["embed", "output"])
def test_a_layer_may_share_with_one_that_reads_it(first):
    net = network({
        "embed": {"class": "linear", "n_out": 4, "from": "data", "reuse_params": "again"},
        "again": {"class": "linear", "n_out": 4, "from": "embed"},
        "output": {"class": "copy", "from": [first if first != "output" else "again"]},
    }, EXTERN)  # fmt: skip
    assert set(net.params) == {"again/W", "again/b"}
    run(net)


def test_a_layer_in_a_loop_shares_with_a_later_one():
    def transposed(reuse_layer, **_):
        return reuse_layer.params["W"].t()

    unit = {
        "output": {"class": "choice", "target": "classes", "beam_size": 2, "from": "prob", "initial_output": 0},
        "embed": {"class": "linear", "n_out": 4, "with_bias": False, "from": "prev:output",
                  "reuse_params": {"map": {"W": {"custom": transposed, "reuse_layer": "prob"}}}},
        "prob": {"class": "softmax", "from": "embed", "with_bias": False, "target": "classes", "loss": "ce"},
    }  # fmt: skip
    net = randomised(network({"output": {"class": "rec", "from": [], "unit": unit, "target": "classes"}}, EXTERN))
    assert list(net.params) == ["output/rec/prob/W"]
    out = run(net, train=True)
    (grad,) = torch.autograd.grad(out.objective, list(net.params.values()))
    assert bool(torch.isfinite(grad).all())


def test_nested_maps_and_missing_parameters():
    layers = {
        "a": {"class": "linear", "n_out": 3, "from": "data"},
        "output": {
            "class": "linear",
            "n_out": 3,
            "from": "data",
            "reuse_params": {"map": {"W": {"map": {"W": "a"}}, "b": {"reuse_layer": "a"}}},
        },
    }
    net = network(layers, EXTERN)
    assert set(net.params) == {"a/W", "a/b"}
    layers["output"]["reuse_params"] = {"map": {"W": "a"}}
    with pytest.raises(ConfigError, match="'b' is not in the map"):
        network(layers, EXTERN)
    layers["output"]["reuse_params"] = {"map": {"W": "a"}, "auto_create_mising": True}
    with pytest.raises(ConfigError, match="auto_create_missing"):
        network(layers, EXTERN)


def test_layers_of_one_scope_share_parameters():
    net = network({
        "a": {"class": "linear", "n_out": 4, "from": "data"},
        "output": {"class": "linear", "n_out": 4, "from": "a", "name_scope": "a"},
    }, EXTERN)  # fmt: skip
    assert set(net.params) == {"a/W", "a/b"}
    with pytest.raises(ConfigError, match="is shared and must have shape"):
        network({
            "a": {"class": "linear", "n_out": 3, "from": "data"},
            "output": {"class": "linear", "n_out": 4, "from": "a", "name_scope": "a"},
        }, EXTERN)  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"param_variational_noise": 0.1}, {"param_dropout": 0.5}])
def test_parameters_are_noisy_in_training_only(options):
    layers = {"output": {"class": "linear", "n_out": 3, "from": "data", **options, "loss": "as_is"}}
    net = randomised(network(layers, EXTERN))
    data, _ = batch(EXTERN, LENGTHS)
    plain = data["data"] @ net.params["output/W"] + net.params["output/b"]
    torch.testing.assert_close(run(net)["output"].data, plain)
    trained = run(net, train=True)
    assert torch.allclose(trained["output"].data, plain, atol=1e-5) is not bool(options)
    grads = torch.autograd.grad(trained.objective, list(net.params.values()))
    assert all(bool(g.any()) for g in grads)
    torch.testing.assert_close(run(net)["output"].data, plain)


def test_noise_by_the_config_reaches_loops_and_embeddings_but_not_vectors():
    unit = {"output": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "data:source"}}
    layers = {
        "embed": {"class": "linear", "n_out": 4, "from": "data:classes"},
        "rec": {"class": "rec", "unit": unit, "from": "embed"},
        "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "rec"},
        "output": {"class": "copy", "from": "lstm", "loss": "as_is"},
    }
    net = randomised(network(layers, EXTERN, param_dropout=0.3, param_dropout_min_ndim=2))
    noisy = {n for n, p in net.params.items() if any(x.param is p for x in net.substituted_params.noisy)}
    assert noisy == {n for n, p in net.params.items() if p.dim() >= 2}
    assert all(x.slots for x in net.substituted_params.noisy)
    out = run(net, train=True)
    grads = torch.autograd.grad(out.objective, list(net.params.values()))
    assert all(bool(torch.isfinite(g.to_dense()).all()) for g in grads)


def test_a_dropout_rate_of_one_is_an_error():
    with pytest.raises(ConfigError, match="param_dropout"):
        network({"output": {"class": "linear", "n_out": 3, "from": "data", "param_dropout": 1.0}}, EXTERN)
