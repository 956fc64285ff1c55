"""A step that is computed again: for optimizers which ask for the objective several times."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from returnn_lite.engine.step import repeatable_objective, run_step
from tests.nets import network

NET = {
    "drop": {"class": "dropout", "dropout": 0.5, "from": "data"},
    "norm": {"class": "batch_norm", "from": "drop"},
    "output": {"class": "softmax", "from": "norm", "loss": "ce", "target": "classes"},
}


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    lengths = np.array([6, 4], "int32")
    data = {
        "data": rng.normal(size=(2, 6, 4)).astype("float32"),
        "classes": rng.integers(5, size=(2, 6), dtype="int32"),
    }
    return SimpleNamespace(data=data, lengths=dict.fromkeys(data, lengths), tags=["a", "b"], complete=1.0)


def test_the_same_random_numbers_and_no_counting_twice(batch):
    net, device = network(NET).train(), torch.device("cpu")
    net.seed(7)
    again = repeatable_objective(net, batch, device)
    first = run_step(net, batch, device).out.objective
    counted = {name: p.clone() for name, p in net.params.items() if not p.requires_grad}
    assert counted
    for _ in range(3):
        assert torch.equal(again(), first)
    for name, value in counted.items():
        assert torch.equal(net.params[name], value)
    assert not torch.equal(run_step(net, batch, device).out.objective, first)  # the next step draws other numbers
