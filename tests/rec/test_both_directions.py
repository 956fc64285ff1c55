"""A forward and a backward LSTM computed by one call: the numbers of two, whatever stands in the padding."""

import pytest
import torch

from returnn_lite.ops.lstm import bidirectional_lstm, lstm
from returnn_lite.rec.both_directions import BothDirections
from tests.nets import DENSE, batch, gradients, network, randomised, valid_part

LENGTHS = {"data": [6, 4, 1], "classes": [6, 4, 1]}


def rec(source, direction, **more):
    return {"class": "rec", "unit": "nativelstm2", "n_out": 3, "direction": direction, "from": source, **more}


OUTPUT = {"class": "softmax", "loss": "ce", "from": ["f", "b"]}
NETS = {
    "both": {"f": rec("data", 1), "b": rec("data", -1), "output": OUTPUT},
    "backward first": {"b": rec("data", -1), "f": rec("data", 1), "output": {**OUTPUT, "from": ["b", "f"]}},
    "another unit": {
        "f": rec("data", 1, unit="lstmp"),
        "b": rec("data", -1, unit="lstmp"),
        "output": OUTPUT,
    },
    "two levels": {
        "f0": rec("data", 1),
        "b0": rec("data", -1),
        "f": rec(["f0", "b0"], 1),
        "b": rec(["f0", "b0"], -1),
        "output": OUTPUT,
    },
    "read apart": {
        "f": rec("data", 1),
        "b": rec("data", -1),
        "x": {"class": "combine", "kind": "mul", "from": ["f", "b"]},
        "output": {**OUTPUT, "from": "x"},
    },
    "read in another order": {"f": rec("data", 1), "b": rec("data", -1), "output": {**OUTPUT, "from": ["b", "f"]}},
}
APART = {
    "another unit": {"f": rec("data", 1, unit="standardlstm"), "b": rec("data", -1, unit="standardlstm")},
    "two sources": {"l": {"class": "linear", "n_out": 4, "from": "data"}, "f": rec("data", 1), "b": rec("l", -1)},
    "one direction": {"f": rec("data", 1), "b": rec("data", 1)},
    "two sizes": {"f": rec("data", 1), "b": rec("data", -1, n_out=4)},
    "an initial state": {"f": rec("data", 1, initial_state="var"), "b": rec("data", -1)},
    "dropout": {"f": rec("data", 1, dropout=0.1), "b": rec("data", -1, dropout=0.1)},
}


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("name", NETS)
def test_both_directions_have_the_numbers_of_two_layers(name, at_once, monkeypatch):
    monkeypatch.setattr(BothDirections, "worthwhile", lambda self, x: at_once)
    nets = [randomised(network(NETS[name], network_fusion=on)).train() for on in (True, False)]
    assert any("both directions at once" in line for line in nets[0].program.fusion.lines)
    data, lengths = batch(DENSE, LENGTHS, padding="garbage")
    found, want = (net(data, lengths) for net in nets)
    torch.testing.assert_close(found.objective, want.objective)
    for layer in ("f", "b", "output"):
        assert str(found[layer].spec) == str(want[layer].spec)
        torch.testing.assert_close(valid_part(found[layer]), valid_part(want[layer]))
    torch.testing.assert_close(found["f"].data, want["f"].data)  # zeros in the padding
    grads = [gradients(net, out.objective) for net, out in zip(nets, (found, want), strict=True)]
    for key, grad in grads[1].items():
        torch.testing.assert_close(grads[0][key], grad)


@pytest.mark.parametrize("name", APART)
def test_others_stay_apart(name):
    net = network({**APART[name], "output": OUTPUT})
    assert not net.program.fusion.lines


def test_the_call_starts_from_either_end():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 2, 4, generator=generator)
    ahead, back = ([torch.randn(n, 12, generator=generator) for n in (4, 3)] for _ in range(2))
    biases = torch.randn(2, 12, generator=generator)
    zeros = torch.zeros(2, 3)
    whole = bidirectional_lstm(x, (*ahead, biases[0]), (*back, biases[1]))
    torch.testing.assert_close(whole[..., :3], lstm(x, *ahead, biases[0], zeros, zeros)[0])
    torch.testing.assert_close(whole[..., 3:], lstm(x.flip(0), *back, biases[1], zeros, zeros)[0].flip(0))
    padding = torch.arange(5).unsqueeze(1) >= torch.tensor([5, 2])
    padded = bidirectional_lstm(x, (*ahead, biases[0]), (*back, biases[1]), padding=padding)
    short = bidirectional_lstm(x[:2, 1:], (*ahead, biases[0]), (*back, biases[1]))
    torch.testing.assert_close(padded[:2, 1:], short)
    assert not padded[2:, 1].any()
