"""Losses of layers in a loop within a loop: over all frames of both, wherever the layers run."""

import pytest
import torch

from tests.nets import batch, gradients, network, randomised, valid_part
from tests.rec.nets import linear

DATA = {"data": {"dim": 4}, "other": {"dim": 3}}
LENGTHS = {"data": [4, 2, 3], "other": [2, 4, 3]}


def outer(*, feedback):
    inner = {
        "s": linear(["data:source", "prev:s", "base:x"]),
        "cost": {"class": "linear", "activation": None, "n_out": 1, "from": "s", "loss": "as_is"},
        "output": {"class": "copy", "from": "s"},
    }
    unit = {
        "x": linear(["data:source", "prev:mean"] if feedback else "data:source"),
        "h": {"class": "rec", "from": "base:o", "unit": inner},
        "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "h"},
        "output": {"class": "copy", "from": "mean"},
    }
    return {"o": {"class": "copy", "from": "data:other"}, "output": {"class": "rec", "from": "data:data", "unit": unit}}


def results(feedback, moved):
    net = randomised(network(outer(feedback=feedback), DATA, optimize_move_layers_out=moved)).train()
    out = net(*batch(DATA, LENGTHS, padding="garbage"))
    assert list(out.losses) == ["output/h/cost"]
    seen = out["output/h/cost"]
    return out.losses["output/h/cost"].sum, valid_part(seen).sum(), seen.shape, gradients(net, out.objective)


@pytest.mark.parametrize("feedback", [True, False])
def test_the_sum_over_the_frames_of_both_loops(feedback):
    moved, inside = results(feedback, True), results(feedback, False)
    for loss, total, shape, _ in (moved, inside):
        torch.testing.assert_close(loss, total)
        assert sorted(shape) == [1, 3, 4, 4]
    torch.testing.assert_close(moved[0], inside[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved[3], inside[3], rtol=1e-4, atol=1e-4)
