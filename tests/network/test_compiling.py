"""`torch_compile` for the layers outside of loops: equal numbers, few compilations, and what is left out by name."""

import copy
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.network.compiling.segment import Segment
from returnn_lite.ops.precision import lowered
from returnn_lite.tensor import Dim
from tests.engine.helpers import options, run
from tests.nets import batch, gradients, network, randomised, valid_part

TIME = Dim(None, "time")
SHARED = {"same_dim_tags_as": {"T": TIME}}
DATA = {
    "data": {"dim": 4, **SHARED},
    "words": {"dim": 6, "sparse": True, **SHARED},
    "classes": {"dim": 5, "sparse": True, **SHARED},
}
SIZES = ([5, 3, 4], [7, 7, 2, 1, 6], [4, 9], [6, 6, 6, 6, 6, 6], [3, 2, 8, 5])  # of five batches


def linear(source, n_out=6, **more):
    return {"class": "linear", "from": source, "n_out": n_out, "activation": "tanh", **more}


def softmax(source, **more):
    return {"class": "softmax", "from": source, "target": "classes", "loss": "ce", **more}


def combine(*sources):
    return {"class": "combine", "kind": "add", "from": list(sources)}


ATTENTION = {
    "q": linear("data"),
    "k": linear("data"),
    "t": {"class": "reinterpret_data", "from": "k", "set_dim_tags": {"T": Dim(None, "keys")}},
    "e": {"class": "dot", "from": ["q", "t"], "red1": "F", "red2": "F", "var1": "T", "var2": "T?"},
    "w": {"class": "softmax_over_spatial", "from": "e", "axis": "stag:keys"},
    "att": {"class": "dot", "from": ["w", "t"], "red1": "stag:keys", "red2": "stag:keys", "var1": "T", "var2": "F"},
    "output": softmax("att"),
}
NETS = {
    "element-wise": {
        "a": linear("data", activation="relu"),
        "n": {"class": "layer_norm", "from": "a"},
        "c": combine("n", "a"),
        "output": softmax("c"),
    },
    "dropout": {"a": linear("data", dropout=0.3), "b": linear("a", dropout=0.2), "output": softmax("b", dropout=0.1)},
    "convolution": {
        "a": {"class": "conv", "from": "data", "n_out": 3, "filter_size": (3,), "padding": "same", "with_bias": True},
        "p": {"class": "pool", "from": "a", "pool_size": (2,), "mode": "max", "padding": "same", "strides": 1},
        "output": softmax("p"),
    },
    "attention": ATTENTION,
    "reductions": {
        "a": linear("data"),
        "mean": {"class": "reduce", "mode": "mean", "axes": "T", "from": "a"},
        "c": {"class": "combine", "kind": "add", "from": ["a", "mean"]},
        "output": softmax("c"),
    },
    "around a loop": {
        "a": linear("data"),
        "n": {"class": "layer_norm", "from": "a"},
        "lstm": {"class": "rec", "unit": "lstm", "from": "n", "n_out": 4},
        "b": linear("lstm"),
        "output": softmax("b"),
    },
    "another length": {
        "a": {"class": "conv", "from": "data", "n_out": 3, "filter_size": (3,), "padding": "valid", "activation": None},
        "b": {"class": "copy", "from": "a", "is_output_layer": True},
        "output": {"class": "reduce", "mode": "mean", "axes": "T", "from": "b", "loss": "as_is"},
    },
}


class Backend:
    """Runs graphs as they are, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler():
    """What was compiled by another test does not count."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(net, backend="eager", **config):
    """The network as it is, and compiled."""
    options = ({}, {"torch_compile": {"backend": backend}})
    return [randomised(network(net, DATA, **config, **more)) for more in options]


def same_numbers(nets, sizes=SIZES):
    """The objective, its gradients, and all outputs are the same for batches of these lengths."""
    for lengths in sizes:
        given = batch(DATA, {"time": lengths}, size=len(lengths), padding="garbage")
        plain, compiled = (net(*given) for net in nets)
        torch.testing.assert_close(compiled.objective, plain.objective, rtol=1e-5, atol=1e-5)
        grads = [gradients(net, out.objective) for net, out in zip(nets, (plain, compiled), strict=True)]
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-5)
        for name in nets[0].layers if not nets[0].training else ("output",):
            torch.testing.assert_close(valid_part(compiled[name]), valid_part(plain[name]), rtol=1e-5, atol=1e-5)


def functions(net):
    """How many functions there are for the layers of a network."""
    waiting, count = [*net.program.compiled.parts], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, Segment):
            count += sum(map(len, part.functions.values()))
            waiting += part.parts or []
    return count


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", NETS)
def test_the_same_numbers_without_compiling_anew(name, backend):
    nets = pair(NETS[name], backend)
    for net in nets:
        net.train()
        net.seed(5)
    same_numbers(nets)
    assert functions(nets[1]) == (2 if name == "around a loop" else 1)
    for net in nets:
        net.eval()
    same_numbers(nets)


def test_one_compilation_for_batches_of_any_size():
    backend = Backend()
    net = pair(NETS["element-wise"], backend)[1].train()
    for lengths in SIZES:
        net(*batch(DATA, {"time": lengths}, size=len(lengths)))
    assert backend.count == 1
    net.eval()
    with torch.no_grad():
        net(*batch(DATA, {"time": [4, 2]}, size=2))
    assert backend.count == 2


def test_equal_sizes_are_not_taken_for_the_same():
    backend = Backend()
    net = pair(NETS["attention"], backend)[1].train()
    for lengths in ([3, 3, 3], [5, 4], [2, 6, 3, 1]):
        net(*batch(DATA, {"time": lengths}, size=len(lengths)))
    assert backend.count == 1


def test_one_sequence_and_one_frame():
    same_numbers(pair(NETS["element-wise"]), sizes=([5], [1, 1], [1], [4, 2]))


def test_what_cannot_be_compiled_is_named_with_the_reason():
    net = {
        "a": linear("data"),
        "b": linear("a"),
        "g": {"class": "scaled_grad", "from": "b", "scale": 0.5},
        "c": linear("g"),
        "output": softmax("c"),
    }
    nets = pair(net)
    lines = []
    nets[1].context.log.v3 = lines.append
    same_numbers(nets)
    assert lines == ["torch_compile: not compiled: 'g' (defines a gradient of its own)"]
    assert functions(nets[1]) == 2


EXPRESSIONS = [
    "source(0) * 0.5 + source(0) ** 2",
    "tf.nn.relu(source(0)) + tf.math.log(tf.maximum(source(0), 1e-3))",
    "source(0) - tf.reduce_mean(source(0), axis=-1, keepdims=True)",
    "tf.concat([source(0)[:, :, 1:], source(0)[:, :, :1]], -1)",
    "tf.nn.dropout(source(0), 0.3)",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_of_tensorflow(expression):
    net = {"a": linear("data"), "e": {"class": "eval", "from": "a", "eval": expression}, "output": softmax("e")}
    nets = pair(net)
    for made in nets:
        made.train()
        made.seed(1)
    same_numbers(nets)
    assert functions(nets[1]) == 1


@pytest.mark.parametrize("name", ["attention", "dropout"])
def test_mixed_precision(name):
    nets = pair(NETS[name])
    for net in nets:
        net.train()
        net.seed(1)
    with lowered(torch.device("cpu"), torch.bfloat16):
        same_numbers(nets, SIZES[:2])
    assert functions(nets[1]) == 1


def test_copies_are_compiled_too():
    nets = pair(NETS["element-wise"])
    same_numbers((nets[0], pickle.loads(pickle.dumps(nets[1]))))
    same_numbers((nets[0], copy.deepcopy(nets[1])))


def test_a_second_source_is_concatenated():
    net = {"a": linear("data"), "b": linear("a"), "c": linear(["a", "b"]), "output": softmax("c")}
    nets = pair(net)
    same_numbers(nets)
    assert functions(nets[1]) == 1


def test_gradients_of_rows_stay():
    net = {"emb": linear("data:words", activation=None, with_bias=False), "b": linear("emb"), "output": softmax("b")}
    made = pair(net)[1].train()
    out = made(*batch(DATA, {"time": [4, 3, 2]}))
    (grad,) = torch.autograd.grad(out.objective, [made.params["emb/W"]])
    assert grad.is_sparse
    assert functions(made) == 1


def test_masks_are_drawn_from_the_seed():
    net = pair(NETS["dropout"])[1].train()
    given = batch(DATA, {"time": [4, 3, 2]})
    found = []
    for seed in (1, 2, 1):
        net.seed(seed)
        found.append(float(net(*given).objective.detach()))
    assert found[0] == found[2] != found[1]


def test_noise_on_parameters():
    nets = pair(NETS["element-wise"], param_variational_noise=0.1)
    for net in nets:
        net.train()
        net.seed(3)
    same_numbers(nets)


def test_errors_name_the_layer():
    net = {
        "a": linear("data"),
        "b": linear("a", n_out=5),
        "g": {"class": "gather", "from": "b", "position": "data:words", "axis": "F"},
        "output": {"class": "reduce", "mode": "sum", "axes": "T", "from": "g", "loss": "as_is"},
    }
    plain, compiled = pair(net)
    data, lengths = batch(DATA, {"time": [4, 3, 2]})
    data["words"] = torch.full_like(data["words"], 5)
    texts = []
    for made in (plain, compiled):
        with pytest.raises(ConfigError, match=r'network\["g"\]') as info:
            made(data, lengths)
        texts.append(str(info.value))
    assert "\n" not in texts[1]


def test_a_compiler_that_fails():
    def broken(graph, inputs):
        raise ValueError("no such machine")

    net = pair(NETS["element-wise"], broken)[1]
    with pytest.raises(ConfigError, match=r"`torch_compile` cannot compile layers 'a' to 'output' .*no such machine"):
        net(*batch(DATA, {"time": [4, 3, 2]}))


def test_options_that_exclude_it():
    assert pair(NETS["element-wise"], maximize_grad_norm=0.1)[1].program.compiled is None
    assert pair(NETS["element-wise"], grad_checkpoint=["a", "n"])[1].program.compiled is None


def test_a_training_ends_with_the_same_parameters(tmp_path):
    found = []
    for name, more in (("plain", {}), ("compiled", {"torch_compile": {"backend": "eager"}})):
        run(options(tmp_path / name, **more))
        found.append(torch.load(tmp_path / name / "model.003.pt")["model"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_with_inductor(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    net = {**NETS["dropout"], "n": {"class": "layer_norm", "from": "b"}, "output": softmax("n")}
    nets = pair(net, "inductor")
    for made in nets:
        made.train()
        made.seed(1)
    same_numbers(nets, SIZES[:3])


def test_the_compiler_is_loaded_when_it_is_asked_for():
    """It takes a second."""
    code = (
        "import sys, returnn_lite.catalog; print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert found.stdout.strip() == "[]"
