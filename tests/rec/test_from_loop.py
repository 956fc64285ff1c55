"""What the net outside reads of a loop: accumulated layers, last frames, losses."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised

DATA = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [4, 0, 2], "classes": [4, 0, 2]}


def lin(source, size=3, activation="tanh", **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def loop(unit, **more):
    return {"class": "rec", "from": "data:data", "unit": unit, **more}


def run(net, lengths=LENGTHS, **config):
    made = randomised(network(net, DATA, **config))
    return made, made(*batch(DATA, lengths))


@pytest.mark.parametrize("moved", [True, False])
def test_last_frame(moved):
    unit = {
        "s": lin(["data:source", "prev:s"], need_last=True, initial_output=0.25),
        "y": lin("data:source", 2, need_last=True),
        "output": lin("s"),
    }
    net = {
        "output": loop(unit, optimize_move_layers_out=moved),
        "last": {"class": "rec_last_output", "rec_layer": "output", "sub_layer_name": "s", "is_output_layer": True},
        "last_y": {"class": "rec_last_output", "rec_layer": "output", "sub_layer_name": "y", "is_output_layer": True},
        "all": {"class": "get_rec_accumulated", "from": "output", "sub_layer": "y", "is_output_layer": True},
    }
    _, out = run(net)
    frames = out["all"].batch_major().data
    assert out["last"].data.shape == (3, 3) and out["last_y"].data.shape == (3, 2)
    torch.testing.assert_close(out["last_y"].data, torch.stack([frames[0, 3], torch.zeros(2), frames[2, 1]]))
    torch.testing.assert_close(out["last"].data[1], torch.full((3,), 0.25))


@pytest.mark.parametrize("moved", [True, False])
def test_losses(moved):
    """Of layers that stay, that move, and of layers in sub-networks: sums over the valid frames."""
    ce = {"class": "softmax", "target": "classes", "loss": "ce"}
    unit = {
        "s": lin(["data:source", "prev:p"]),
        "p": {**ce, "from": "s", "loss_scale": 0.5},
        "sn": {
            "class": "subnetwork",
            "from": ["s"],
            "subnetwork": {"output": lin("data"), "q": {**ce, "from": "data"}},
        },
        "output": {**ce, "from": "sn"},
    }
    net = {
        "in": {"class": "reinterpret_data", "from": "data:data", "size_base": "data:classes"},
        "output": loop(unit, **{"from": "in", "optimize_move_layers_out": moved}),
    }
    _, out = run(net)
    assert sorted(out.losses) == ["output/output", "output/p", "output/sn/q"]
    logs = torch.log(out["output"].batch_major().data)
    labels = batch(DATA, LENGTHS)[0]["classes"].to(torch.int64)
    want = -sum(logs[b, t, labels[b, t]] for b, n in enumerate(LENGTHS["data"]) for t in range(n))
    torch.testing.assert_close(out.losses["output/output"].sum, want)
    torch.testing.assert_close(out.losses["output/output"].inv_norm, torch.tensor(6.0))
    total = sum(v.sum * v.scale for v in out.losses.values())
    torch.testing.assert_close(out.objective, total)


def test_losses_do_not_depend_on_the_place():
    found = []
    for moved in (True, False):
        unit = {
            "s": {"class": "rnn_cell", "unit": "gru", "from": ["data:source", "prev:p"], "n_out": 3},
            "p": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
            "output": lin("p"),
        }
        net = {
            "in": {"class": "reinterpret_data", "from": "data:data", "size_base": "data:classes"},
            "output": loop(unit, **{"from": "in", "optimize_move_layers_out": moved}),
        }
        found.append(run(net)[1].losses["output/p"].sum)
    torch.testing.assert_close(found[0], found[1])


def test_no_gradient_through_the_loop():
    unit = {"s": lin(["data:source", "prev:s"]), "output": lin("s")}
    net = {
        "x": lin("data:data"),
        "rnn": loop(unit, **{"from": "x", "back_prop": False}),
        "output": lin("rnn"),
    }
    made, out = run(net)
    out["output"].data.sum().backward()
    assert made.params["output/W"].grad is not None and made.params["x/W"].grad is None


WRONG = {
    "inside only": ({"acc": {"class": "copy", "from": "output/s"}}, 'set "is_output_layer": True on it'),
    "no such layer": ({"acc": {"class": "copy", "from": "output/nothing"}}, "no layer 'nothing' is needed in this"),
    "not kept": (
        {"acc": {"class": "rec_last_output", "rec_layer": "output", "sub_layer_name": "s"}},
        'set "need_last": True on it',
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_errors(name):
    more, text = WRONG[name]
    unit = {"s": lin(["data:source", "prev:s"]), "output": lin("s")}
    with pytest.raises(ConfigError, match=text):
        network({"output": loop(unit), "acc": {**more["acc"], "is_output_layer": True}}, DATA)


def test_what_runs_after_a_loop_without_gradients_has_its_own():
    unit = {"s": lin(["data:source", "prev:s"]), "output": lin("s")}
    made, out = run(
        {"rnn": loop(unit, **{"from": "data:data", "back_prop": False}), "output": {"class": "copy", "from": "rnn"}}
    )
    out["output"].data.sum().backward()
    assert made.params["rnn/rec/output/W"].grad is not None and made.params["rnn/rec/s/W"].grad is None
