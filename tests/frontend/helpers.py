"""Axes and tensors for tests of the frontend."""

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.behavior_version import BehaviorVersion


def sized(lengths, batch, name="time", dtype="int32"):
    """An axis with these sizes over other axes."""
    axes = (batch,) if isinstance(batch, rf.Dim) else tuple(batch)
    return rf.Dim(rf.convert_to_tensor(np.array(lengths, dtype), dims=axes), name=name)


def random(dims, seed=0, **options):
    """Normal random numbers, also in the padding."""
    shape = [dim.padded_size() for dim in dims]
    values = np.random.RandomState(seed).normal(size=shape).astype("float32")
    return rf.convert_to_tensor(values, dims=dims, **options)


def values(tensor):
    """As numpy."""
    return tensor.raw_tensor.detach().numpy()


def same(tensor, dims, expected, **options):
    """Checks axes and numbers."""
    assert tensor.dims == tuple(dims), f"{tensor.dims} instead of {dims}"
    np.testing.assert_allclose(values(tensor), expected, **{"rtol": 1e-5, "atol": 1e-6, **options})


@pytest.fixture
def version():
    """Sets the behavior version of a test; the newest if it is not called."""
    BehaviorVersion._reset(30)
    yield BehaviorVersion._reset
    BehaviorVersion._reset()


@pytest.fixture(autouse=True)
def fresh_context():
    """A run context, a behavior version and random numbers of its own for every test."""
    token = rf.run_ctx.RUNNING.set(rf.RunContext("train_step", 1, 0, True))
    BehaviorVersion._reset(30)
    torch.manual_seed(1)
    yield
    BehaviorVersion._reset()
    rf.run_ctx.RUNNING.reset(token)
