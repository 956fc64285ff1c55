"""Sub-networks: what names mean inside and outside, parameters, losses, equality with the same layers unfolded."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import DENSE, batch, gradients, network, randomised

LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}


def run(net):
    return net(*batch(DENSE, LENGTHS))


def linear(source="data", **more):
    return {"class": "linear", "from": source, "n_out": 3, "activation": "tanh", **more}


def subnet(layers, source="data", **more):
    return {"class": "subnetwork", "from": source, "subnetwork": layers, **more}


def loss(source="data", **more):
    return {"class": "softmax", "from": source, "loss": "ce", "target": "classes", **more}


def test_equal_to_the_same_layers_outside():
    inside = randomised(network({"output": loss("sub"), "sub": subnet({"output": linear("in"), "in": linear()})}))
    flat = network({"output": loss("o"), "o": linear("in"), "in": linear()})
    names = {"in": "sub/in", "o": "sub/output", "output": "output"}
    with torch.no_grad():
        for name, p in flat.params.items():
            layer, _, rest = name.partition("/")
            p.copy_(inside.params[f"{names[layer]}/{rest}"])
    first, second = run(inside), run(flat)
    torch.testing.assert_close(first.objective, second.objective)
    grads, expected = gradients(inside, first.objective), gradients(flat, second.objective)
    torch.testing.assert_close(grads["sub/in/W"], expected["in/W"])


def test_parameter_names_follow_the_nesting():
    net = network({"output": subnet({"output": linear("a"), "a": subnet({"output": linear("x:y"), "x:y": linear()})})})
    assert {n.rpartition("/")[0] for n in net.params} == {"output/output", "output/a/output", "output/a/x__y"}


def test_name_scope_of_a_subnet():
    shared = subnet({"output": linear()}, name_scope="both")
    net = network({"output": linear(["a", "b"]), "a": shared, "b": shared})
    assert set(net.params) == {"output/W", "output/b", "both/output/W", "both/output/b"}


def test_data_inside_is_the_source():
    inner = {"output": linear(["data", "base:a"])}
    net = network({"output": subnet(inner, ["a", "b"]), "a": linear(n_out=2), "b": linear(n_out=5)})
    assert net.params["output/output/W"].shape == (9, 3)


def test_other_data_keys_are_those_of_the_root():
    net = network({"output": subnet({"output": {"class": "copy", "from": "data:classes"}}, "a"), "a": linear()})
    assert net.spec("output").sparse


def test_sources_kept_apart():
    inner = {"output": linear(["data:0", "data:1", "data:b", "data"])}
    apart = subnet(inner, ["a", "b"], concat_sources=False)
    net = network({"output": apart, "a": linear(n_out=2), "b": linear(n_out=5)})
    assert net.params["output/output/W"].shape == (2 + 5 + 5 + 2, 3)


def test_base_reaches_out_over_several_levels():
    deep = {"output": linear("base:base:a")}
    net = network({"output": subnet({"output": subnet(deep)}), "a": linear(n_out=7)})
    assert net.params["output/output/output/W"].shape == (7, 3)


def test_inner_layers_can_be_named_from_outside():
    net = network({"output": linear(["sub/in", "sub/deep/in"]), "sub": subnet({
        "output": linear("in"), "in": linear(n_out=2), "deep": subnet({"output": linear(), "in": linear(n_out=5)}),
    })})  # fmt: skip
    assert net.params["output/W"].shape == (7, 3) and "sub/deep/in/W" in net.params


def test_unused_inner_layers_are_not_built():
    net = network({"output": subnet({"output": linear(), "unused": {"class": "nonsense"}})})
    assert set(net.params) == {"output/output/W", "output/output/b"}


def test_a_subnet_nobody_reads_is_not_built():
    assert set(network({"output": linear(), "sub": subnet({"output": loss()})}).params) == {"output/W", "output/b"}


def test_inner_losses_count_and_bear_the_subnets_name():
    inner = {"output": linear(), "aux": loss(loss_scale=0.5), "shown": linear(is_output_layer=True)}
    net = network({"output": linear("sub"), "sub": subnet(inner)})
    out = run(net)
    assert list(out.losses) == ["sub/aux"] and "sub/shown/W" in net.params
    torch.testing.assert_close(out.objective, 0.5 * out.losses["sub/aux"].sum)


def test_l2_of_inner_layers():
    net = randomised(network({"output": subnet({"output": linear(L2=0.3)})}))
    expected = 0.3 * sum(p.square().sum() for p in net.params.values())
    torch.testing.assert_close(run(net).objective, expected)


def test_l2_of_a_subnet_covers_all_its_parameters():
    net = randomised(network({"output": subnet({"output": linear("in"), "in": linear()}, L2=0.3)}))
    expected = 0.3 * sum(p.square().sum() for p in net.params.values())
    torch.testing.assert_close(run(net).objective, expected)


def test_dropout_of_a_subnet_drops_its_input():
    net = randomised(network({"output": subnet({"output": {"class": "copy", "from": "data"}}, dropout=0.5)})).train()
    values = run(net)["output"].data
    kept = values != 0
    assert 0 < int(kept[0, 0].sum()) < 4 or bool(kept.all()) or not bool(kept.any())
    data, _ = batch(DENSE, LENGTHS)
    torch.testing.assert_close(values[kept], 2 * data["data"][kept])


INSIDE = 'network["sub"]["subnetwork"]'


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ({}, "layer 'output' not found"),
        ({"output": linear("nope")}, f"{INSIDE}[\"output\"]: layer 'nope' not found"),
        ({"output": linear(unknown=1)}, f"{INSIDE}[\"output\"]: layer class 'linear' has no option 'unknown'"),
        ({"output": linear("base:nope")}, "layer 'nope' not found"),
        ({"output": linear("a"), "a": linear("output")}, "loop on layer 'output': output <- a <- output"),
        ({"output": linear("base:sub")}, "loop on layer 'sub': sub <- output <- base:sub <- sub"),
        (5, f"{INSIDE}: must be a dict of layers, but is int instead"),
    ],
)
def test_errors(layers, text):
    with pytest.raises(ConfigError) as caught:
        network({"output": linear("sub"), "sub": subnet(layers)})
    assert text in str(caught.value)


def test_a_part_that_does_not_exist():
    with pytest.raises(ConfigError, match="layer 'nope' not found"):
        network({"output": linear("sub/nope"), "sub": subnet({"output": linear()})})
    with pytest.raises(ConfigError, match="network\\[\"output\"\\]: layer 'a' has no part 'x'"):
        network({"output": linear("a/x"), "a": linear()})


def test_an_inner_layer_may_be_read_before_the_subnet_is_complete():
    net = network({"output": subnet({"output": linear("base:b"), "in": linear()}), "b": linear("output/in", n_out=2)})
    assert net.params["output/output/W"].shape == (2, 3)
