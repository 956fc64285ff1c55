"""Batches on their way to the device."""

import numpy
import torch

from returnn_lite.datasets import Batch, BatchingOptions, Loader, init_dataset
from returnn_lite.engine.data import pinned
from returnn_lite.engine.step import to_device
from tests.engine.helpers import dataset

CPU = torch.device("cpu")


def test_page_locked_batches(monkeypatch):
    """Without a GPU nothing can be locked, so that is only noted here."""
    locked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: locked.append(tensor.shape) or tensor)
    arrays = {"data": numpy.arange(6.0).reshape(1, 3, 2), "raw": ["text"]}
    batch = Batch(arrays, {"data": numpy.array([3])}, ["tag"], numpy.array([0]), 1.0)
    found = pinned(batch)
    assert locked == [(1, 3, 2)] and found.data["raw"] == ["text"] and found.tags == ["tag"]
    moved = to_device(found.data["data"], CPU)
    assert moved.tolist() == arrays["data"].tolist()
    assert to_device(found.data["raw"], CPU) == ["text"]
    assert isinstance(to_device(found.lengths["data"], CPU), torch.Tensor) and len(locked) == 1


def test_waiting_counts_only_while_the_device_has_nothing_to_do():
    waits = []
    for busy in (True, False):
        data = init_dataset(dataset(20, seed=1))
        data.init_seq_order(1)
        loader = Loader(data, BatchingOptions(batch_size=10), keys=["data"], workers=0, busy=lambda: busy)  # noqa: B023
        assert len(list(loader)) > 3
        waits.append(loader.wait_time)
    assert waits[0] == 0 and waits[1] > 0
