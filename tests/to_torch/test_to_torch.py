"""Networks as Python files: the numbers of the network, in a process that cannot import the package."""

import re
from pathlib import Path

import pytest
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.network.network import Network
from returnn_lite.tasks import eval_names
from returnn_lite.to_torch.batches import batch, results
from returnn_lite.to_torch.checks import check, loaded_module
from returnn_lite.to_torch.module import Module
from returnn_lite.to_torch.scope import Unwritable
from returnn_lite.to_torch.task import to_torch_task, write
from tests.to_torch.alone import run_alone

EXTERN = {"data": {"dim": 5}, "classes": {"dim": 7, "sparse": True}, "gates": {"dim": 24}}


def lstm(source, direction: int = 1) -> dict:
    """A recurrent layer."""
    return {"class": "rec", "unit": "nativelstm2", "n_out": 6, "direction": direction, "from": source}


def linear(source, n_out: int = 6, **more) -> dict:
    """A product."""
    return {"class": "linear", "n_out": n_out, "activation": None, "from": source, **more}


DECODER = {
    "output": {"class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0},
    "end": {"class": "compare", "kind": "equal", "from": "output", "value": 0},
    "embed": linear("output", 4, initial_output=0),
    "cell": {"class": "rec", "unit": "lstm", "n_out": 6, "from": ["prev:embed", "prev:context"]},
    "query": linear("cell"),
    "sum": {"class": "combine", "kind": "add", "from": ["base:keys", "query"]},
    "energy": linear("sum", 1, activation="tanh"),
    "weights": {"class": "softmax_over_spatial", "from": "energy"},
    "context": {"class": "generic_attention", "base": "base:encoder", "weights": "weights"},
    "prob": {"class": "softmax", "target": "classes", "from": ["cell", "context"]},
}
ATTENTION = {
    "encoder": lstm("data"),
    "keys": linear("encoder"),
    "output": {
        "class": "rec",
        "from": [],
        "target": "classes",
        "max_seq_len": "max_len_from('base:encoder')",
        "unit": DECODER,
    },
}
ADDED = {"class": "combine", "kind": "add"}
MASKED = {  # the halves of "data" whose number is below that of "classes"
    "halved": {"class": "pool", "mode": "max", "padding": "same", "pool_size": (2,), "from": "data"},
    "position": {"class": "range_in_axis", "axis": "T", "from": "halved"},
    "count": {"class": "length", "from": "data:classes"},
    "mask": {"class": "compare", "kind": "less", "from": ["position", "count"]},
    "chosen": {"class": "masked_computation", "mask": "mask", "from": "halved", "unit": {"class": "copy"}},
    "output": lstm("chosen", -1),
}
NETS: dict[str, tuple[dict, bool]] = {  # the net; whether it searches
    "one layer": ({"output": {"class": "softmax", "n_out": 7, "from": "data"}}, False),
    "bidirectional": ({"f": lstm("data"), "b": lstm("data", -1), "output": linear(["f", "b"], 7)}, False),
    "pooled": (
        {
            "f": lstm("data"),
            "p": {"class": "pool", "mode": "max", "padding": "same", "pool_size": (3,), "from": "f"},
            "output": lstm("p", -1),
        },
        False,
    ),
    "convolved": (
        {
            "c": {"class": "conv", "filter_size": (5,), "strides": 2, "padding": "same", "n_out": 6, "from": "data"},
            "d": {"class": "conv", "filter_size": (3,), "padding": "valid", "n_out": 4, "from": "c"},
            "n": {"class": "batch_norm", "from": "d", "update_sample_only_in_training": True},
            "output": {"class": "reduce", "mode": "mean", "axes": "T", "from": "n"},
        },
        False,
    ),
    "self-attention": (
        {
            "x": linear("data"),
            "position": {"class": "relative_positional_encoding", "from": "x", "n_out": 3},
            "a": {
                "class": "self_attention", "num_heads": 2, "total_key_dim": 6, "n_out": 6, "from": "x",
                "key_shift": "position",
            },
            "y": {**ADDED, "from": ["x", "a"]},
            "n": {"class": "layer_norm", "from": "y"},
            "output": {"class": "softmax", "n_out": 7, "from": "n"},
        },
        False,
    ),
    "own loop": (
        {
            "output": {
                "class": "rec", "from": "data",
                "unit": {
                    "h": {"class": "linear", "activation": "tanh", "n_out": 6, "from": ["data:source", "prev:h"]},
                    "output": {"class": "eval", "from": ["h", "prev:h"], "eval": "source(0) * 2.0 - source(1)"},
                },
            }
        },
        False,
    ),
    "decoder": (ATTENTION, False),
    "search": (ATTENTION, True),
    "best of a search": ({**ATTENTION, "decision": {"class": "decide", "from": "output"}}, True),
    "two layers of a search": (
        {
            "x": linear("data"),
            "output": {
                "class": "rec", "from": "x", "target": "classes", "include_eos": True,
                "unit": {
                    "embed": linear("output", 4, initial_output=0),
                    "cell": {"class": "rec", "unit": "lstm", "n_out": 6, "from": ["data:source", "prev:embed"]},
                    "prob": {"class": "softmax", "n_out": 7, "from": "cell"},
                    "output": {
                        "class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0,
                        "length_normalization": False,
                    },
                    "is_label": {
                        "class": "compare", "kind": "not_equal", "from": "output", "value": 0, "is_output_layer": True,
                    },
                },
            },
            "labels": {
                "class": "masked_computation", "mask": "output/is_label", "from": "output", "unit": {"class": "copy"},
            },
            "decision": {"class": "decide", "from": "labels"},
        },
        True,
    ),
    "layers behind a search": (
        {
            **ATTENTION,
            "labels": linear("output"),
            "backward": lstm("labels", -1),
            "summary": {"class": "reduce", "mode": "mean", "axes": "T", "from": "encoder"},
            "sum": {**ADDED, "from": ["backward", "summary"]},
            "decision": {"class": "copy", "from": "sum"},
        },
        True,
    ),
    "frames that are counted": (MASKED, False),
    "given gates": ({"output": {**lstm("data:gates"), "input_projection": False}}, False),
    "statistics of the batch": ({"n": {"class": "batch_norm", "from": "data"}, "output": linear("n")}, False),
    "power": ({"x": linear("data"), "output": {"class": "combine", "kind": "pow", "from": ["x", "x"]}}, False),
    "ctc search": (
        {
            "x": {"class": "softmax", "n_out": 8, "from": "data"},
            "decision": {"class": "ctc_decode", "beam_size": 3, "from": "x", "target": "classes"},
        },
        True,
    ),
    "random": (
        {
            "x": linear("data"),
            "r": {"class": "random", "distribution": "normal", "shape": (6,), "dtype": "float32"},
            "output": {**ADDED, "from": ["x", "r"]},
        },
        False,
    ),
    "padded twice": (
        {
            "c": {
                "class": "conv", "filter_size": (3,), "strides": 2, "padding": "same", "n_out": 6, "from": "data",
            },
            "p": {"class": "pool", "mode": "max", "padding": "same", "pool_size": (2,), "from": "c"},
            "output": {
                "class": "rec", "from": "p",
                "unit": {"output": {**linear(["data:source", "prev:output"]), "activation": "tanh"}},
            },
        },
        False,
    ),
    "eval": ({"output": {"class": "eval", "from": "data", "eval": "tf.nn.relu(source(0)) * 0.5"}}, False),
}  # fmt: skip


def network(name: str, seed: int = 3) -> tuple[Network, str]:
    """The net, with random parameters, and the layer that is asked for."""
    description, search = NETS[name]
    layer = "decision" if "decision" in description else "output"
    config = Config({"extern_data": EXTERN})
    net = Network(
        config, description, search=search, eval=False, extra_layers=(layer,), seed=seed, eval_names=eval_names
    )
    for param in net.params.values():
        if param.dim() == 1:
            torch.nn.init.normal_(param, std=0.3, generator=torch.Generator().manual_seed(seed))
    return net.eval(), layer


def written(net: Network, layer: str) -> Module:
    """The module of a network."""
    return write(net, layer, "A net.", "net.pt")


@pytest.mark.parametrize("name", NETS)
def test_numbers(name: str):
    net, layer = network(name)
    assert check(net, layer, written(net, layer)).gap < 1e-5


@pytest.mark.parametrize("name", ["own loop", "decoder", "search", "two layers of a search", "ctc search"])
def test_short_sequences(name: str):
    net, layer = network(name)
    made = loaded_module(written(net, layer))
    net.context.keeps_batch = net.context.full_beam = False
    for frames in (1, 2, 3):
        data, lengths = batch(net, 2, frames)
        with torch.no_grad():
            wanted = results(net, layer, data, lengths)
            found = made(**data, **{f"{key}_lengths": x for key, x in lengths.items()})
        torch.testing.assert_close(found, wanted)


def test_a_loop_begins_with_its_first_frame():
    text = written(*network("search")).text
    assert text.count("masked_softmax(") == 2  # its definition, and once in the loop


def test_searches_that_end_early_end_alike():
    net, layer = network("search")
    module = written(net, layer)
    bias = "output/rec/prob/b"
    for value in (0.5, 1.0, 1.5, 2.0):
        with torch.no_grad():
            net.params[bias][0] = value
            module.weights["output_rec_prob_b"][0] = value
        check(net, layer, module)


def test_is_readable():
    net, layer = network("search")
    text = written(net, layer).text
    assert "returnn" not in text
    assert "self.keys_W" in text and "for t in range(" in text and "break" in text
    assert "# keys: linear -> (T(data), B, 6)" in text
    assert "cell_prev = " in text and "padding_idx" not in text
    assert (
        "    a, ifo = torch.split_with_sizes(gates, " in text and "`peepholes`" not in text
    )  # variables and docstrings
    assert "if output_over.all():\n" in text and " in zip(" in text and "out, _, _ = torch.lstm(" in text
    assert not re.search(r"\bx_\d|dtype=torch.float32\)$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 200
    assert len(text.splitlines()) < 500


def test_without_the_package(tmp_path: Path):
    net, layer = network("search")
    module = written(net, layer)
    file = tmp_path / "net.py"
    file.write_text(module.text)
    torch.save(module.weights, tmp_path / "net.pt")
    data, lengths = batch(net, 3, 19)
    net.context.keeps_batch = False
    with torch.no_grad():
        wanted = results(net, layer, data, lengths)
    (found,) = run_alone({file: (1, {**data, **{f"{k}_lengths": x for k, x in lengths.items()}})})
    assert set(found) == {"output", "lengths", "scores"}
    for name, x in wanted.items():
        torch.testing.assert_close(found[name], x)


def test_what_python_decides_is_refused():
    text = "source(0) * (1.0 if source(0).size(1) % 5 > 2 else 0.5)"
    description = {"output": {"class": "eval", "from": "data", "eval": text}}
    net = Network(Config({"extern_data": EXTERN}), description, eval=False, eval_names=eval_names).eval()
    with pytest.raises((Unwritable, ConfigError)):
        check(net, "output", written(net, "output"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to_torch_file": "net.txt"}, '`?must end with ".py"'),
        ({"get_model": lambda **_: torch.nn.Linear(2, 2), "train_step": lambda **_: None}, "networks of layers"),
    ],
)
def test_refused(options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = Config({"extern_data": EXTERN, "allow_random_model_init": True, **options})
    with pytest.raises(ConfigError, match=message):
        to_torch_task(config, Log.silent())
    assert not list(tmp_path.iterdir())
