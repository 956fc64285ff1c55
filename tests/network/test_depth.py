"""Nets far deeper than Python's call stack: construction, Specs, plans, runs and gradients take no recursion."""

import sys

import pytest

from returnn_lite.errors import ConfigError
from tests.nets import DENSE, batch, network

LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}
DEEP = 5000
LESS = 1200  # above the limit of recursion too; for what costs more per layer
SCORED = {"class": "softmax", "target": "classes", "loss": "ce"}


def tanh(source, **more):
    return {"class": "activation", "activation": "tanh", "from": source, **more}


def linear(source, **more):
    return {"class": "linear", "from": source, "n_out": 4, "activation": "tanh", **more}


def chain(count, first, make=tanh):
    """`count` layers "l0", "l1" …, each made of the one before."""
    return {f"l{i}": make(f"l{i - 1}" if i else first) for i in range(count)}


def subnet(layers, source="data"):
    return {"class": "subnetwork", "from": source, "subnetwork": layers}


def loop(unit, source="data"):
    return {"class": "rec", "from": source, "unit": unit}


def each(count, make):
    """Layers "l0", "l1" … of `make(number, name of the one before)`."""
    return {f"l{i}": make(i, f"l{i - 1}" if i else "data") for i in range(count)}


def nested(count):
    layers = {"output": tanh("data")}
    for _ in range(count):
        layers = {"output": subnet(layers)}
    return subnet(layers)


def sharing(count, source):
    """Each shares the parameters of the next one, which is built for its sake."""
    return {
        f"l{i}": linear(source(i), n_out=4, **({"reuse_params": f"l{i + 1}"} if i < count - 1 else {}))
        for i in range(count)
    }


def by_targets(i, before):
    return {**linear("data", target=f"layer:{before}" if i else "classes"), "n_out": None}


def constants(i, before):
    return {"class": "constant", "value": 0.0, "shape_deps": [before] if i else []}


LAST, SOME = f"l{DEEP - 1}", f"l{LESS - 1}"
INITIAL = {"c": linear(["data:source", "prev:c"], initial_output=SOME), "output": tanh("c")}
START = {"class": "variable", "shape": (4,), "init": 0.5}
NETS = {
    "chain": {**chain(DEEP, "data", linear), "output": {**SCORED, "from": LAST}},
    "in a sub-network": {
        "sub": subnet({**chain(DEEP, "data"), "output": linear(LAST)}),
        "output": {**SCORED, "from": "sub"},
    },
    "of sub-networks": {**each(LESS, lambda i, before: subnet({"output": tanh("data")}, before)), "output": tanh(SOME)},
    "of sub-networks that read the one outside": {
        **each(LESS, lambda i, before: subnet({"output": tanh(f"base:{before}")})),
        "output": tanh(SOME),
    },
    "sub-networks in one another": {"deep": nested(LESS), "output": tanh("deep")},
    "shared parameters": {**sharing(LESS, lambda i: "data"), "output": tanh("l0")},
    "shared parameters along a chain": {
        **sharing(LESS, lambda i: f"l{i - 1}" if i else "data"),
        "output": {**SCORED, "from": SOME},
    },
    "sizes by targets": {**each(LESS, by_targets), "output": tanh(SOME)},
    "what constants need": {**each(LESS, constants), "output": {"class": "copy", "from": SOME}},
    "conditions": {
        "flag": {"class": "constant", "value": True, "dtype": "bool"},
        **each(
            LESS,
            lambda i, before: {
                "class": "cond",
                "from": [],
                "condition": "flag",
                "true_layer": tanh(before),
                "false_layer": tanh(before),
            },
        ),
        "output": tanh(SOME),
    },
    "padding and convolution": {
        **each(
            LESS,
            lambda i, before: (
                {"class": "conv", "from": before, "n_out": 4, "filter_size": (3,), "padding": "valid"}
                if i % 2
                else {"class": "pad", "from": before, "axes": "T", "padding": 1}
            ),
        ),
        "output": tanh(SOME),
    },
    "of loops": {
        **each(LESS // 2, lambda i, before: loop({"output": tanh("data:source")}, before)),
        "output": tanh(f"l{LESS // 2 - 1}"),
    },
    "in a loop": {
        "rec": loop({**chain(LESS, ["data:source", "prev:output"], linear), "output": tanh(SOME)}),
        "output": {**SCORED, "from": "rec"},
    },
    "moved out of a loop": {"rec": loop({**chain(DEEP, "data:source"), "output": tanh(LAST)}), "output": tanh("rec")},
    "in a sub-network in a loop": {
        "rec": loop(
            {
                "sub": subnet({**chain(LESS, "data"), "output": linear(SOME)}, ["data:source"]),
                "output": linear(["sub", "prev:output"]),
            }
        ),
        "output": tanh("rec"),
    },
    "of previous ticks": {
        "rec": loop(
            {
                **chain(
                    LESS, "data:source", lambda before: tanh(before if before == "data:source" else f"prev:{before}")
                ),
                "output": tanh(SOME),
            }
        ),
        "output": tanh("rec"),
    },
    "that gives an initial output": {
        "rec": loop({**INITIAL, **chain(LESS, "start"), "start": START}),
        "output": tanh("rec"),
    },
    "shared in a loop": {
        "rec": loop({**sharing(LESS, lambda i: "data:source"), "output": linear(["l0", "prev:output"])}),
        "output": tanh("rec"),
    },
}


@pytest.mark.parametrize("name", NETS)
def test_deep_nets_are_constructed_and_run(name):
    net = network(NETS[name])
    assert len(net.layer_modules) > sys.getrecursionlimit() / 2
    out = net(*batch(DENSE, LENGTHS))
    assert out["output"].data.isfinite().all()
    assert set(net.param_owners()) == set(net.params)
    assert any("output" in line for line in net.summary())
    if net.loss_nodes:
        out.objective.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.params.values())


@pytest.mark.parametrize("end, message", [
    ("nowhere", "layer 'nowhere' not found; required by 'l0' <- 'l1' <- "),
    ("output", "there is a dependency loop on layer 'output': output <- l1199 <- "),
])  # fmt: skip
def test_errors_at_the_end_of_a_deep_chain_show_both_ends(end, message):
    with pytest.raises(ConfigError) as caught:
        network({**chain(LESS, end), "output": tanh(SOME)})
    text = str(caught.value)
    assert message in text and "more) <- " in text and len(text) < 1000
