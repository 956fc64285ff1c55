"""What losses inside of loops read: targets and divisors, in the loop, in its sub-networks and outside."""

import pytest
import torch

from tests.nets import batch, network, randomised

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [4, 2, 3], "classes": [4, 2, 3]}
LIN = {"class": "linear", "activation": "tanh", "n_out": 3}


def softmax(target, **more):
    return {"class": "softmax", "from": "s", "loss": "ce", "target": target, "name_scope": "prob", **more}


def losses(unit, moved=True, **others):
    s = {"s": {**LIN, "from": ["data:source", "prev:s"]}}
    loop = {"class": "rec", "from": "data", "unit": {**s, "output": {"class": "copy", "from": "s"}, **unit}}
    net = randomised(network({**others, "output": loop}, DATA, optimize_move_layers_out=moved)).train()
    return net(*batch(DATA, LENGTHS))


NAMES = ["classes", "data:classes", "layer:data:classes", "base:data:classes", "layer:base:other", "here", "layer:here"]


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("moved", [True, False])
def test_targets_by_any_name_give_the_number_of_outputs(target, moved):
    copied = {"class": "copy", "from": "data:classes"}
    expected = losses({"p": softmax("classes")}, moved).losses["output/p"]
    found = losses({"p": softmax(target), "here": copied}, moved, other=copied).losses["output/p"]
    torch.testing.assert_close(found.sum, expected.sum)
    assert found.inv_norm == expected.inv_norm == 9


@pytest.mark.parametrize("moved", [True, False])
def test_divisors_are_layers_of_the_loop_or_outside(moved):
    unit = {"two": {"class": "eval", "from": "s", "eval": "source(0) * 0 + 2"}}
    for name, expected in (("base:length", 9), ("two", 2 * 3 * 12)):  # 12 frames with padding
        options = {"custom_inv_norm_factor": name}
        p = softmax("classes", loss_opts=options)
        found = losses({**unit, "p": p}, moved, length={"class": "length", "from": "data"}).losses
        assert found["output/p"].inv_norm == expected


@pytest.mark.parametrize("moved", [True, False])
def test_sub_networks_have_names_of_their_own(moved):
    """A target that is a layer of a sub-network, of the sub-network around it, and of the loop."""
    labels = {"class": "copy", "from": "data:classes"}
    zeros = {"class": "eval", "from": "data:classes", "eval": "source(0) * 0"}
    divided = {"custom_inv_norm_factor": "base:base:base:three"}
    inner = {
        "s": {"class": "copy", "from": "data"},
        "labels": labels,
        "own": softmax("layer:labels", name_scope="/prob"),
        "around": softmax("layer:base:labels", name_scope="/prob"),
        "loop": softmax("layer:base:base:labels", name_scope="/prob"),
        "divided": softmax("classes", loss_opts=divided, name_scope="/prob"),
        "output": {"class": "copy", "from": "s"},
    }
    middle = {
        "in": {"class": "subnetwork", "from": "data", "subnetwork": inner},
        "labels": zeros,
        "output": {"class": "copy", "from": "in"},
    }
    sub = {"class": "subnetwork", "from": "s", "subnetwork": middle}
    unit = {"sub": sub, "labels": labels, "output": {"class": "copy", "from": "sub"}}
    found = losses(unit, moved, three={"class": "constant", "value": 3.0}).losses
    torch.testing.assert_close(found["output/sub/in/own"].sum, found["output/sub/in/loop"].sum)
    torch.testing.assert_close(found["output/sub/in/own"].sum, found["output/sub/in/divided"].sum)
    assert not torch.allclose(found["output/sub/in/around"].sum, found["output/sub/in/own"].sum)
    assert found["output/sub/in/divided"].inv_norm == 3 and found["output/sub/in/own"].inv_norm == 9


@pytest.mark.parametrize("option", ["darc1", "spatial_smoothing"])
def test_terms_for_outputs_of_layers_inside(option):
    """A layer that stays in the loop adds to the objective what it adds when it is moved out."""
    unit = {"output": {**LIN, "n_out": 9, "activation": None, "from": ["data:source", "prev:output"], option: 0.1}}
    unit["aside"] = {**unit["output"], "from": "data:source", "is_output_layer": True}
    found = [losses(unit, moved).objective for moved in (True, False)]
    torch.testing.assert_close(found[0], found[1])
    assert found[0] > 0
