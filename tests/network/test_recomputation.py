"""`grad_checkpoint`: the same numbers, for less memory."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

KEYS = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}


def block(**options):
    """Everything that makes a second computation differ from the first: dropout, running statistics, noise."""
    inside = {
        "norm": {"class": "batch_norm", "from": "data"},
        "up": {"class": "linear", "n_out": 8, "activation": "relu", "from": "norm", "dropout": 0.3, **options},
        "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "up", "dropout": 0.1},
        "output": {"class": "eval", "eval": "0.5 * source(0) + source(1)", "from": ["data", "lstm"]},
    }
    return {"class": "subnetwork", "subnetwork": inside}


def net_dict(**options):
    blocks = {f"block{i}": {**block(), **options, "from": f"block{i - 1}" if i else "data"} for i in range(3)}
    output = {"class": "softmax", "from": "block2", "loss": "ce", "target": "classes"}
    aux = {"class": "softmax", "from": "block1/up", "loss": "ce", "target": "classes", "loss_scale": 0.3}
    return {**blocks, "output": output, "aux": aux}


def train_once(net, steps=2):
    """Objective and gradients of the last of some steps; the state after them."""
    data, lengths = batch(KEYS, {"data": [6, 4, 5], "classes": [6, 4, 5]})
    net.train()
    net.seed(3)
    for _ in range(steps):
        out = net(data, lengths)
        trained = {name: p for name, p in net.params.items() if p.requires_grad}
        objective = out.objective
        out.forget_layers()
        grads = torch.autograd.grad(objective, list(trained.values()), allow_unused=True)
    counted = {name: p.detach().clone() for name, p in net.params.items() if not p.requires_grad}
    return objective.detach(), dict(zip(trained, grads, strict=True)), counted, net.random_state


def same(first, second):
    objective, grads, counted, state = first
    torch.testing.assert_close(second[0], objective, rtol=0, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(second[1][name], grad, rtol=1e-6, atol=1e-7)
    for name, value in counted.items():
        torch.testing.assert_close(second[2][name], value, rtol=0, atol=0)
    assert torch.equal(second[3], state)


@pytest.mark.parametrize("options", [
    {"config": {"grad_checkpoint": True}},
    {"config": {"grad_checkpoint": ["block0", "block1/lstm", "block2/*"]}},
    {"block": {"grad_checkpoint": True}},
    {"block": {"grad_checkpoint": ["norm", "up"]}},
    {"config": {"grad_checkpoint": True, "param_variational_noise": 0.1, "param_dropout": 0.2}},
    {"config": {"grad_checkpoint": True, "network_fusion": False}},
], ids=["all", "some", "sub-network", "layers inside", "noise in parameters", "without fusion"])  # fmt: skip
def test_equal_numbers(options):
    config = options.get("config", {})
    plain = {key: value for key, value in config.items() if key != "grad_checkpoint"}
    net = randomised(network(net_dict(**options.get("block", {})), KEYS, **config))
    assert net.program.recomputed
    same(train_once(randomised(network(net_dict(), KEYS, **plain))), train_once(net))


def test_a_loop_is_a_part():
    unit = {
        "prev": {"class": "linear", "n_out": 4, "activation": "tanh", "from": ["data:source", "prev:prev"]},
        "output": {"class": "linear", "n_out": 4, "activation": None, "from": "prev", "dropout": 0.2},
    }
    made = {
        "loop": {"class": "rec", "unit": unit, "from": "data"},
        "output": {"class": "softmax", "from": "loop", "loss": "ce", "target": "classes"},
    }
    net = randomised(network(made, KEYS, grad_checkpoint=["loop"]))
    assert [part.name for part in net.program.recomputed] == ["loop"]
    same(train_once(randomised(network(made, KEYS))), train_once(net))


def saved_bytes(net):
    """What the graph of a step keeps for the backward pass, without parameters and data."""
    data, lengths = batch(KEYS, {"data": [60, 40, 50], "classes": [60, 40, 50]})
    seen = {}

    def keep(x):
        seen[x.data_ptr()] = x.numel() * x.element_size()
        return x

    net.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = net(data, lengths)
        out.forget_layers()
    own = {p.data_ptr() for p in net.params.values()} | {x.data_ptr() for x in data.values()}
    return sum(size for place, size in seen.items() if place not in own)


def test_less_is_kept():
    plain, parts = (randomised(network(net_dict(), KEYS, grad_checkpoint=value)) for value in (None, True))
    assert saved_bytes(parts) < 0.5 * saved_bytes(plain)


def test_the_program_says_it():
    text = str(network(net_dict(), KEYS, grad_checkpoint=["block0"]).program)
    assert "computed again in the backward pass: block0, 5" in text


def test_layers_with_effects_are_left_out(capfd):
    inside = {
        "look": {"class": "print", "from": "data"},
        "up": {"class": "linear", "n_out": 4, "activation": "relu", "from": "look"},
        "output": {"class": "linear", "n_out": 4, "activation": "relu", "from": "up"},
    }
    made = {
        "sub": {"class": "subnetwork", "subnetwork": inside, "from": "data", "grad_checkpoint": True},
        "output": {"class": "softmax", "from": "sub", "loss": "ce", "target": "classes"},
    }
    net = network(made, KEYS)
    train_once(net, steps=1)
    assert sum(len(part.steps) for part in net.program.recomputed) == 3
    assert capfd.readouterr().out.count("look") <= 1


@pytest.mark.parametrize(("value", "words"), [
    (["blok0"], 'grad_checkpoint: unknown layer .blok0.; did you mean "block0"'),
    ("block0", "grad_checkpoint: must be True or a list of names"),
    ([3], "grad_checkpoint: must be True or a list of names"),
])  # fmt: skip
def test_refused(value, words):
    with pytest.raises(ConfigError, match=words):
        network(net_dict(), KEYS, grad_checkpoint=value)


def test_not_inside_of_loops():
    unit = {"output": {**block(), "from": "data:source", "grad_checkpoint": True}}
    made = {"output": {"class": "rec", "unit": unit, "from": "data"}}
    with pytest.raises(ConfigError, match="grad_checkpoint.*is not possible inside of a loop"):
        network(made, KEYS)
