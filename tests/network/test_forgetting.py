"""What a step leaves in memory: outputs of layers go when they have been read, and nothing waits for the collector."""

import gc

import pytest
import torch

from returnn_lite.engine.step import run_step
from returnn_lite.optim.gradients import gradients
from tests.nets import DENSE, batch, network, randomised

LENGTHS = {"data": [6, 4, 5], "classes": [6, 4, 5]}
CE = {"class": "softmax", "loss": "ce", "target": "classes"}


def linear(source, **options):
    return {"class": "linear", "n_out": 4, "activation": "relu", "from": source, **options}


STACK = {"a": linear("data"), "b": linear("a"), "sum": {"class": "combine", "kind": "add", "from": ["a", "b"]},
         "c": linear("sum"), "output": {**CE, "from": "c"}}  # fmt: skip
TEACHER_FORCED = {
    "emb": {"class": "linear", "n_out": 4, "from": "prev:output"},
    "sum": {"class": "combine", "kind": "add", "from": ["emb", "data:source"]},
    "again": linear(["prev:sum", "sum"]),
    "score": {**CE, "from": "again"},
    "output": {"class": "choice", "target": "classes", "beam_size": 2, "from": "score", "initial_output": 0},
}
RECURRENT = {
    **TEACHER_FORCED,
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 4, "from": ["emb", "data:source"]},
    "query": {"class": "combine", "kind": "add", "from": ["prev:s", "s"]},
    "score": {**CE, "from": ["again", "query"]},
}


def loop(unit):
    return {"enc": linear("data"), "output": {"class": "rec", "from": "enc", "target": "classes", "unit": unit}}


NETS = {"stack": STACK, "moved out": loop(TEACHER_FORCED), "recurrent": loop(RECURRENT)}


@pytest.mark.parametrize("name", NETS)
def test_equal_numbers_without_the_outputs_of_layers(name):
    net = randomised(network(NETS[name])).train()
    data, lengths = batch(DENSE, LENGTHS)
    want = net(data, lengths)
    net.wanted = frozenset()
    found = net(data, lengths)
    assert set(found.values) <= {*net.program.evaluated, *map(net.program.names.get, ("output",))}
    assert len(found.values) < len(want.values)
    torch.testing.assert_close(found.objective, want.objective)
    expected = gradients(want.objective, dict(net.params))
    for name, grad in gradients(found.objective, dict(net.params)).items():
        torch.testing.assert_close(grad, expected[name])


def test_code_that_may_read_any_layer_finds_it():
    asks = {"class": "eval", "from": "c", "eval": "source(0) + self.network.get_layer('a').output.placeholder"}
    net = network({**STACK, "asks": asks, "output": {**CE, "from": "asks"}})
    net.wanted = frozenset()
    assert torch.isfinite(net(*batch(DENSE, LENGTHS)).objective)


def test_a_step_of_the_trainer_asks_for_losses_only():
    net = randomised(network(STACK)).train()
    data, lengths = batch(DENSE, LENGTHS)
    made = type("Batch", (), {"data": {k: x.numpy() for k, x in data.items()},
                              "lengths": {k: x.numpy() for k, x in lengths.items()}, "tags": []})  # fmt: skip
    out = run_step(net, made, torch.device("cpu"), wanted=()).out
    assert {node.name for node in out.values} == {"output", "data:classes"}
    assert run_step(net, made, torch.device("cpu")).out["a"].data.shape == (3, 6, 4)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("search", [False, True])
def test_nothing_is_left_to_the_collector(name, search):
    """But lengths, in a search those of hypotheses and sequences hold each other."""
    net = network(NETS[name], search=search).train(not search)
    data, lengths = batch(DENSE, LENGTHS)
    net(data, lengths)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        net(data, lengths)
        gc.collect()
        left = [x for x in gc.garbage if isinstance(x, torch.Tensor) and x.is_floating_point()]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left
