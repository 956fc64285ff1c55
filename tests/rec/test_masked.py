"""`masked_computation` and `unmask`."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised, valid_part

DATA = {"data": {"dim": 4}, "flags": {"dim": 2, "sparse": True}, "labels": {"dim": 3, "sparse": True}}
LENGTHS = {"data": [6, 4, 2], "flags": [6, 4, 2], "labels": [3, 0, 2]}
FLAGS = [[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]]  # the second sequence has none within its length


def lin(source, size=3, activation="tanh", **more):
    return {"class": "linear", "activation": activation, "from": source, "n_out": size, **more}


def outside(unit, **more):
    """A masked computation on whole sequences."""
    return {
        "f": {"class": "reinterpret_data", "from": "data:flags", "size_base": "data:data"},
        "mask": {"class": "compare", "from": "f", "value": 1},
        "mc": {"class": "masked_computation", "mask": "mask", "from": "data:data", "unit": unit, **more},
        "um": {"class": "unmask", "from": "mc", "mask": "mask"},
        "other": lin("data:data", 2),
        "base": {"class": "copy", "from": "data:data"},
        "output": {"class": "copy", "from": "um"},
    }


def run(net, padding="zeros"):
    made = randomised(network(net, DATA))
    data, lengths = batch(DATA, LENGTHS, padding=padding)
    data["flags"] = torch.tensor(FLAGS, dtype=torch.int32)
    return made, data, made(data, lengths)


def chosen(data, b):
    """The frames of a sequence that the mask chooses."""
    return [t for t in range(LENGTHS["data"][b]) if FLAGS[b][t]]


@pytest.mark.parametrize("padding", ["zeros", "nan"])
def test_frames_are_chosen_and_spread(padding):
    made, data, out = run(outside(lin("data", 3)), padding)
    mc, um = out["mc"].batch_major(), out["um"].batch_major()
    w, b = made.params["mc/W"], made.params["mc/b"]
    dim = mc.spec.dims[1]
    assert mc.length(dim).values.tolist() == [3, 0, 2]
    assert um.length(um.spec.dims[1]).values.tolist() == LENGTHS["data"]
    for i in range(3):
        frames = chosen(data, i)
        want = torch.tanh(data["data"][i, frames] @ w + b)
        torch.testing.assert_close(mc.data[i, : len(frames)], want)
        for t in range(LENGTHS["data"][i]):
            before = [k for k, f in enumerate(frames) if f <= t]
            frame = want[before[-1]] if before else torch.zeros(3)
            torch.testing.assert_close(um.data[i, t], frame)


def test_recurrent_unit_sees_chosen_frames_only():
    made, data, out = run(outside({"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"}))
    plain = randomised(network({"output": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"}}, DATA))
    with torch.no_grad():
        for name in ("W", "W_re", "b"):
            plain.params[f"output/rec/{name}"].copy_(made.params[f"mc/rec/{name}"])
    mc = out["mc"].batch_major()
    for i in (0, 2):
        frames = chosen(data, i)
        x = data["data"][i : i + 1, frames]
        want = plain({"data": x}, {"data": torch.tensor([len(frames)], dtype=torch.int32)})["output"].batch_major()
        torch.testing.assert_close(mc.data[i, : len(frames)], want.data[0])


def test_other_layers_are_chosen_alike():
    unit = {
        "class": "subnetwork",
        "from": "data",
        "subnetwork": {"output": {"class": "copy", "from": ["data", "base:other"]}},
    }
    _, data, out = run(outside(unit))
    mc, other = out["mc"].batch_major(), out["other"].batch_major()
    for i in range(3):
        frames = chosen(data, i)
        torch.testing.assert_close(mc.data[i, : len(frames), 4:], other.data[i, frames])


def test_initial_output_of_the_unit():
    _, _, out = run(outside(lin("data", 3, initial_output="ones")))
    assert (out["um"].batch_major().data[1, :4] == 1).all()
    assert (out["um"].batch_major().data[0, 0] == 1).all()


def test_masked_from():
    net = outside(lin("data", 3))
    net["short"] = lin("data:labels", 4)
    net["mc"] = {**net["mc"], "masked_from": "short"}
    made, _, out = run(net)
    short, mc = out["short"].batch_major(), out["mc"].batch_major()
    assert mc.spec.time_dim == short.spec.time_dim
    want = torch.tanh(short.data @ made.params["mc/W"] + made.params["mc/b"])
    torch.testing.assert_close(valid_part(mc), valid_part(mc.with_data(want)))


UNIT = {
    "class": "subnetwork",
    "from": "data",
    "subnetwork": {
        "l": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"},
        "output": {"class": "copy", "from": "l"},
    },
}


@pytest.mark.parametrize("moved", [True, False])
def test_masked_from_is_the_masked_computation(moved):
    """Reading labels where the mask is True, and reading them chosen already: the same numbers."""
    found = []
    for masked_from in (None, "base:labels"):
        unit = {
            "x": {"class": "rec_unstack", "from": "base:spread"},
            "m": {"class": "rec_unstack", "from": "base:mask"},
            "mc": {"class": "masked_computation", "mask": "m", "from": "x", "unit": UNIT, "masked_from": masked_from},
            "um": {"class": "unmask", "from": "mc", "mask": "m"},
            "output": lin(["um", "data:source"]),
        }
        net = {
            "f": {"class": "reinterpret_data", "from": "data:flags", "size_base": "data:data"},
            "mask": {"class": "compare", "from": "f", "value": 1},
            "x": lin("data:data"),
            "labels": {"class": "masked_computation", "mask": "mask", "from": "x", "unit": {"class": "copy"}},
            "spread": {"class": "unmask", "from": "labels", "mask": "mask"},
            "output": {"class": "rec", "from": "data:data", "unit": unit, "optimize_move_layers_out": moved},
        }
        found.append(valid_part(run(net)[2]["output"]))
    torch.testing.assert_close(found[0], found[1])


def test_labels_outside_of_the_unit_do_not_matter():
    """Where the mask is False, a label may lie outside of the unit's classes (blank)."""
    unit = {
        "l": {"class": "eval", "from": "data:source", "eval": "source(0) * 2"},
        "r": {"class": "reinterpret_data", "from": "l", "set_sparse_dim": 2},
        "m": {"class": "compare", "from": "r", "value": 2, "kind": "less"},
        "mc": {"class": "masked_computation", "mask": "m", "from": "r", "unit": lin("data", with_bias=False)},
        "output": lin(["mc", "prev:output"]),
    }
    for moved in (True, False):
        net = {"output": {"class": "rec", "from": "data:labels", "unit": unit, "optimize_move_layers_out": moved}}
        assert run(net)[2]["output"].data.isfinite().all()


WRONG = {
    "no mask": (outside(lin("data"), mask=None), r'network\["mc"\]: `masked_computation` needs the option \'mask\''),
    "another axis": (outside(lin("data"), **{"from": "data:labels"}), "mask and source must have the same time axis"),
    "an unknown layer": (outside(lin("dta")), "layer 'dta' not found"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_errors(name):
    net, text = WRONG[name]
    with pytest.raises(ConfigError, match=text):
        network(net, DATA)
