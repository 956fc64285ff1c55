"""Activation functions: values, names, expressions, the exact logarithm."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.activations import Activation, activation, carry_exact_log, safe_log
from tests.nets import DENSE, batch, network

X = torch.tensor([-2.0, -0.5, 0.0, 0.4, 3.0])


def approx(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(x, 0)),
        ("relu6", lambda x: min(max(x, 0), 6)),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("exp", math.exp),
        ("abs", abs),
        ("neg", lambda x: -x),
        ("square", lambda x: x * x),
        ("softplus", lambda x: math.log(1 + math.exp(x))),
        ("softsign", lambda x: x / (1 + abs(x))),
        ("swish", lambda x: x / (1 + math.exp(-x))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("elu", lambda x: x if x > 0 else math.exp(x) - 1),
        ("selu", lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1))),
        ("leaky_relu", lambda x: x if x > 0 else 0.2 * x),
        ("log_sigmoid", lambda x: -math.log(1 + math.exp(-x))),
        ("2*sigmoid", lambda x: 2 / (1 + math.exp(-x))),
        ("0.5 * tanh + 1", lambda x: 0.5 * math.tanh(x) + 1),
        ("1 - sigmoid", lambda x: 1 - 1 / (1 + math.exp(-x))),
        ("tanh - 1 - 2", lambda x: math.tanh(x) - (1 - 2)),
        ("tanh / 4", lambda x: math.tanh(x) / 4),
        ("identity * sigmoid", lambda x: x / (1 + math.exp(-x))),
    ],
)
def test_elementwise(name: str, formula) -> None:
    chosen = activation(name)
    assert chosen.elementwise
    assert chosen(X).tolist() == approx([formula(x) for x in X.tolist()])


@pytest.mark.parametrize("text", [None, "", "none", "identity"])
def test_identity(text: str | None) -> None:
    chosen = activation(text)
    assert chosen.name == ""
    assert chosen(X) is X


def test_aliases_share_a_name_and_an_object() -> None:
    assert activation("neg").name == "negative"
    assert activation("silu").name == activation("swish").name == "swish"
    assert activation("tanh") is activation("tanh")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_axis(axis: int) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    probs = activation("softmax")(x, axis)
    assert not activation("softmax").elementwise
    torch.testing.assert_close(probs, x.softmax(axis))
    torch.testing.assert_close(activation("log_softmax")(x, axis), x.log_softmax(axis))
    scaled = activation("2*softmax")
    assert not scaled.elementwise
    torch.testing.assert_close(scaled(x, axis), 2 * probs)


def test_options_of_the_function() -> None:
    assert activation("leaky_relu").with_options(alpha=0.5)(X)[0] == -1
    assert activation("safe_log").with_options(eps=0.5)(torch.tensor([0.25])).tolist() == approx([math.log(0.5)])


def test_expression_sees_the_names_given() -> None:
    names = {"tf": SimpleNamespace(tanh=torch.tanh), "half": 0.5}
    chosen: Activation = activation("tf.tanh(x) * x + half", names)
    torch.testing.assert_close(chosen(X), X.tanh() * X + 0.5)


def test_other_names_are_looked_up_in_tf() -> None:
    names = {"tf": SimpleNamespace(nn=SimpleNamespace(crelu=torch.relu), atan=torch.atan), "my_helper": torch.sin}
    assert activation("crelu", names)(X).tolist() == X.relu().tolist()
    assert activation("atan", names)(X).tolist() == X.atan().tolist()
    assert activation("my_helper", names)(X).tolist() == X.sin().tolist()


def test_unknown() -> None:
    with pytest.raises(ConfigError, match='net: invalid activation function: "sigmoit"; did you mean "sigmoid"?'):
        activation("sigmoit", path="net")
    with pytest.raises(ConfigError, match='invalid activation function: "foo"'):
        activation("2*foo")
    with pytest.raises(ConfigError, match=r"invalid activation function: \"tf\.\(x\""):
        activation("tf.(x")


def test_safe_log_gradient_ignores_the_maximum() -> None:
    x = torch.tensor([-1.0, 0.0, 0.1, 0.5], requires_grad=True)
    y = safe_log(x, eps=0.25)
    y.sum().backward()
    assert y.tolist() == approx([math.log(0.25)] * 3 + [math.log(0.5)])
    assert x.grad is not None and x.grad.tolist() == approx([4, 4, 4, 2])
    x.grad = None
    safe_log(x, eps=0.25, use_fake_grad=False).sum().backward()
    assert x.grad.tolist() == approx([0, 0, 0, 2])


@pytest.mark.parametrize(
    ("name", "exact"),
    [("softmax", lambda x: x.log_softmax(-1)), ("sigmoid", torch.nn.functional.logsigmoid), ("exp", lambda x: x)],
)
def test_safe_log_is_exact_behind_probabilities(name: str, exact) -> None:
    x = torch.tensor([[-200.0, 0.0, 200.0]])
    torch.testing.assert_close(activation("safe_log")(activation(name)(x)), exact(x))


def test_exact_log_moves_with_the_entries() -> None:
    x = torch.tensor([[-200.0, 0.0], [50.0, 400.0]])
    probs = activation("softmax")(x)
    torch.testing.assert_close(safe_log(carry_exact_log(probs.T, probs, torch.t)), x.log_softmax(-1).T)
    plain = torch.ones(2)
    assert carry_exact_log(plain, plain, torch.t) is plain
    assert safe_log(probs * 1.0)[0, 0] == approx(math.log(1e-20))


@pytest.mark.parametrize(
    ("activation", "options", "kept"),
    [
        ("relu", {}, False),
        ("tanh", {}, False),
        ("sigmoid", {}, True),
        ("relu", {"darc1": 0.1}, True),
        ("relu", {"loss": "mse", "target": "data"}, True),
    ],
)
def test_arguments_stay_where_somebody_looks_at_them(activation, options, kept):
    net = network({"x": {"class": "linear", "n_out": 4, "activation": activation, "from": "data", **options},
                   "output": {"class": "softmax", "from": "x", "loss": "ce"}})  # fmt: skip
    out = net(*batch(DENSE, {"data": [3, 2], "classes": [3, 2]}, size=2))
    assert (out["x"].pre is not None) == kept
