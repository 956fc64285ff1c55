"""Outputs that are computed when somebody reads them: when, and that all views of them have the same numbers."""

import pytest
import torch

from returnn_lite.layers.activations import activation
from returnn_lite.tensor import Beam, Deferred, Dim, Lengths, PreActivation, Spec, Tensor, batch_dim
from returnn_lite.tensor.precision import in_float32
from tests.nets import batch, network

TIME, FEAT = Dim(None, name="time"), Dim(3, name="feature")
SPEC = Spec((batch_dim, TIME, FEAT))
ENDS = {TIME: Lengths.of(torch.tensor([4, 2], dtype=torch.int32))}
BEAM = Beam(2, torch.zeros(2, 2), torch.tensor([0, 0, 1, 1]))


def deferred(dtype=torch.float32, *, grad=False):
    """The softmax of noise, and how often it was computed."""
    calls = []

    def counted(x, axis):
        calls.append(axis)
        return activation("softmax")(x, axis)

    before = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_(grad)
    return Deferred(Tensor(before, SPEC, ENDS), PreActivation("softmax", before), counted, -1), calls


CHANGES = {
    "copy": lambda x: x.copy(),
    "permuted": lambda x: x.permuted((2, 1, 0)),
    "permuted twice": lambda x: x.permuted((2, 1, 0)).permuted((1, 0, 2)),
    "as it is": lambda x: x.permuted((0, 1, 2)),
    "time in front": lambda x: x.permuted((1, 0, 2)),
    "some sequences": lambda x: x.gather_batch(torch.tensor([1, 1, 0]), None),
    "hypotheses": lambda x: x.tile(BEAM),
    "other lengths": lambda x: x.with_lengths({}),
    "first frames": lambda x: x.each(lambda data: data.narrow(1, 0, 2)),
}


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_those_of_the_result(change, read_first):
    x, calls = deferred()
    plain = change(Tensor(x.pre.data.softmax(-1), SPEC, ENDS))
    if read_first:
        assert x.data.sum() == pytest.approx(8)
    changed = change(x)
    assert len(calls) == read_first
    assert (changed.shape, changed.dtype, changed.spec) == (plain.shape, plain.dtype, plain.spec)
    torch.testing.assert_close(changed.data, plain.data)
    assert len(calls) == 1 and changed.pre.data.shape == changed.shape


def test_copies_compute_once():
    x, calls = deferred()
    copy = x.copy()
    assert copy.data is x.data and len(calls) == 1
    other = x.copy()
    other.data = torch.zeros(2, 4, 3)
    assert x.data.sum() > 7 and other.data.sum() == 0


def test_the_first_reader_does_not_lose_the_gradient():
    x, _ = deferred(grad=True)
    with torch.no_grad():
        assert x.data.requires_grad
    (found,) = torch.autograd.grad(x.data[0, 0, 0], x.pre.data)
    assert found.abs().sum() > 0


def test_half_precision_is_raised_before_the_activation():
    x, calls = deferred(torch.bfloat16)
    raised = in_float32(x)
    assert not calls and x.dtype == raised.dtype == raised.pre.data.dtype == torch.float32
    torch.testing.assert_close(raised.data, x.pre.data.float().softmax(-1))
    full = deferred()[0]
    assert in_float32(full) is full


DATA = {"data": {"dim": 6}, "classes": {"dim": 5, "sparse": True}}
BATCH = batch(DATA, {"data": [3, 2], "classes": [3, 2]}, size=2)


def test_training_does_without_the_softmax(monkeypatch):
    net = network({"output": {"class": "softmax", "from": "data", "loss": "ce", "target": "classes"}}, DATA)
    computed, softmax = [], torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda x, axis: computed.append(axis) or softmax(x, axis))
    out = net(*BATCH)
    out.objective.backward()
    assert not computed and out.losses["output"].error <= 5
    torch.testing.assert_close(out["output"].data.sum(-1), torch.ones(2, 3))
    assert len(computed) == 1


def test_gradients_with_respect_to_probabilities():
    layers = {
        "p": {"class": "softmax", "from": "data", "n_out": 4},
        "same": {"class": "copy", "from": "p"},
        "sum": {"class": "reduce", "mode": "sum", "axes": ["B", "T", "F"], "from": "same"},
        "output": {"class": "gradient", "from": [], "y": "sum", "x": "p"},
    }
    found = network(layers, DATA, evaluate=False)(*BATCH)["output"].data
    torch.testing.assert_close(found[1, :2], torch.ones(2, 4))
