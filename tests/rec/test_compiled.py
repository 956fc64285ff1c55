"""`torch_compile`: the same numbers, and errors that say what to do."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import gradients
from tests.rec.nets import ATTENTION, SIMPLE, decoder, make, run

EAGER = {"backend": "eager"}  # captured as a graph, but run by torch as it is


@pytest.fixture(autouse=True)
def fresh_compiler():
    """What was compiled, or given up, by another test does not count."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def numbers(net, **config):
    """Objective and gradients of the second and the third run: the first one is never compiled."""
    made = make(net, optimize_move_layers_out=False, **config)
    run(made)
    found = []
    for _ in range(2):
        out = run(made)
        found.append((out.objective.detach(), gradients(made, out.objective)))
    return found


@pytest.mark.parametrize("name", ["attention", "simple"])
def test_the_same_numbers(name):
    net = decoder({"attention": ATTENTION, "simple": SIMPLE}[name])
    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    for plain, compiled in zip(numbers(net), numbers(net, torch_compile={"backend": backend}), strict=True):
        torch.testing.assert_close(compiled, plain)
    assert captured


def test_searches_give_the_same_labels():
    plain, compiled = (make(decoder(ATTENTION), search=True, **more) for more in ({}, {"torch_compile": EAGER}))
    for _ in range(3):
        first, second = run(plain)["output"], run(compiled)["output"]
        torch.testing.assert_close(second.data, first.data)
        torch.testing.assert_close(second.beam.scores, first.beam.scores)


@pytest.mark.parametrize("value", [3, "fast", {"speed": 1}])
def test_other_values_are_refused(value):
    with pytest.raises(ConfigError, match="`torch_compile` must be True, False or a dict of backend"):
        make(decoder(SIMPLE), torch_compile=value)


def test_what_cannot_be_compiled_is_a_clear_error():
    def broken(graph, inputs):
        raise ValueError("no such machine")

    text = r'network\["output"\]: `torch_compile` cannot compile what is inside of this loop .*no such machine'
    with pytest.raises(ConfigError, match=text):
        numbers(decoder(SIMPLE), torch_compile={"backend": broken})
    with pytest.raises(ConfigError, match="`torch_compile` cannot compile .*nonsense"):
        make(decoder(SIMPLE), torch_compile={"backend": "nonsense"})


def test_switched_off():
    assert make(decoder(SIMPLE), torch_compile=False).layers["output"].program.compiled is None
