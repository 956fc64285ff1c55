"""`search_plot`: the weights along the best hypotheses as pictures; what is a map of attention weights."""

import re
import sys

import numpy as np
import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.attention_maps import attention_maps, of_queries
from returnn_lite.engine.tasks import search_plot
from returnn_lite.engine.tasks.search_plot import SearchPlot
from returnn_lite.errors import ConfigError
from returnn_lite.library import load
from returnn_lite.network.kept_frames import with_kept_frames
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from tests.engine.helpers import options, run

LABELS = ["</s>", "a", "$b_$", "c"]  # one of them looks like a formula
FRAMES = (9, 4, 6)


def attention_net():
    """An encoder, and a decoder with weights (queries, keys) over its frames that depend on all labels before."""
    unit = {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 4, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
        "embed": {"class": "linear", "activation": None, "n_out": 4, "from": "output", "initial_output": 0},
        "state": {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["prev:embed", "prev:state"]},
        "energy": {"class": "dot", "from": ["base:encoder", "state"], "red1": "f", "red2": "f", "var1": "t",
            "var2": None, "add_var2_if_empty": False},
        "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": "stag:data"},
        "att": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
        "prob": {"class": "softmax", "from": ["state", "att"], "target": "classes", "loss": "ce"},
    }  # fmt: skip
    return {
        "encoder": {"class": "linear", "activation": None, "n_out": 4, "from": "data", "forward_weights_init": 2.0},
        "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": 7, "unit": unit},
        "decision": {"class": "decide", "from": "output", "target": "classes", "length_normalization": True},
    }


def settings(folder, **changes):
    """A search with such a net, whose parameters are random."""
    random = np.random.RandomState(7)
    seqs = [{"data": random.randn(n, 4).astype("float32") * 2, "classes": np.array([1, 2])} for n in FRAMES]
    vocab = {"class": "Vocabulary", "labels": LABELS, "unknown_label": None}
    dims = {"data": (4, 2), "classes": (4, 1)}
    return options(
        folder,
        task="search",
        network=attention_net(),
        extern_data={"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True, "vocab": vocab}},
        search_data={"class": "StaticDataset", "data": seqs, "output_dim": dims},
        search_output_layer="decision",
        search_output_file=str(folder / "found"),
        search_output_file_format="py",
        allow_random_model_init=True,
        random_seed=5,
        **changes,
    )


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn: {filename: (maps, labels)}."""
    pytest.importorskip("matplotlib")
    found = {}
    monkeypatch.setattr(
        search_plot, "draw", lambda maps, title, labels, name, *, option: found.update({name: (maps, labels)})
    )
    return found


@pytest.mark.parametrize("decision", ["decision", "output"])
def test_weights_are_those_along_the_best_hypothesis(tmp_path, drawn, decision):
    """The same as if the decoder is given these labels, which are found in the file."""
    plot = {"layer": "output/weights", "file": "{epoch}/{tag}.png"}
    made = settings(tmp_path, search_plot=plot) | {"search_output_layer": decision}
    run(made)
    texts = eval((tmp_path / "found").read_text(), {"inf": float("inf")})  # noqa: S307 - our own file
    model, lengths = load(made), set()
    assert sorted(drawn) == [f"1/seq-{i}.png" for i in range(3)]
    for i, seq in enumerate(made["search_data"]["data"]):
        text = texts[f"seq-{i}"] if decision == "decision" else max(texts[f"seq-{i}"])[1]
        classes = np.array([LABELS.index(label) for label in text.split()], "int32")
        data = {"data": seq["data"], "classes": classes}
        expected = model.forward(data, layers=("output/weights",))["output/weights"].array
        maps, labels = drawn[f"1/seq-{i}.png"]
        assert labels == text.split() and maps.shape == (1, len(labels), FRAMES[i])
        np.testing.assert_allclose(maps[0], expected.reshape(maps.shape[1:]), rtol=1e-4, atol=1e-6)
        lengths.add(len(labels))
    assert lengths - {0, 1}


def test_pictures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    run(settings(tmp_path, search_plot={"layer": ["output/weights", "output/energy"], "max_seqs": 2}))
    files = sorted((tmp_path / "search_plot" / "1").iterdir())
    names = [f"seq-{i}.output_{layer}.png" for i in (0, 1) for layer in ("energy", "weights")]
    assert [file.name for file in files] == names
    assert all(file.read_bytes()[1:4] == b"PNG" for file in files)


@pytest.mark.parametrize("plot, text", [
    ("output/wieghts", 'did you mean "weights"'),
    ("encodr", 'did you mean "encoder"'),
    ("output", "search_plot: 'output' must have the axes of queries and keys, and maybe heads, but is "),
    ({"layers": "output/weights"}, "search_plot['layers']: unknown option; did you mean \"layer\"?"),
    ({"max_seqs": 3}, "search_plot: must be the name of a layer, a list of them, or a dict of "),
    ({"layer": "output/weights", "max_seqs": 0}, 'search_plot["max_seqs"]: must be a number of sequences, but is 0'),
    ({"layer": "output/weights", "file": "{tags}.png"}, 'but has {tags}; did you mean "tag"?'),
    ({"layer": "output/weights", "file": "{tag.png"}, "must be the pattern of a file's name, but is '{tag.png'"),
    ({"layer": "output/weights", "file": "x.png"}, "must have {tag}, so that pictures differ in name"),
    ({"layer": ["a", "b"], "file": "{tag}.png"}, "must have {layer}, so that pictures differ in name"),
    ({"layer": "output/weights", "file": "{tag}"}, "must end in .png, .svg or .pdf, but is '{tag}' instead"),
    ({"layer": "output/weights", "file": "/dev/null/{tag}.png"}, "search_plot: cannot write '/dev/null/seq-"),
])  # fmt: skip
def test_wrong_options(tmp_path, plot, text):
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        run(settings(tmp_path, search_plot=plot))
    assert "\n" not in str(caught.value)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError) as caught:
        SearchPlot.from_config(Config({"search_plot": "output/weights"}))
    assert str(caught.value) == 'search_plot: pictures need matplotlib: pip install "returnn-lite[plot]"'
    assert SearchPlot.from_config(Config({})) is None


def test_maps_of_heads():
    """Two axes with lengths are queries and keys, others heads, wherever they are; also of a single query."""
    queries, keys = Dim(name="queries"), Dim(name="keys")
    heads, one = Dim(3, "heads"), Dim(1, "one")
    data = torch.rand(2, 4, 3, 5)
    lengths = {queries: Lengths.of(torch.tensor([4, 1])), keys: Lengths.of(torch.tensor([2, 5]))}
    spec = Spec((batch_dim, queries, heads, keys), "float32", time=None, feature=None)
    first, second = attention_maps(Tensor(data, spec, lengths), "x", option="search_plot")
    assert np.array_equal(first, data[0, :, :, :2].transpose(0, 1).numpy())
    assert np.array_equal(second, data[1, :1].transpose(0, 1).numpy())
    spec = Spec((batch_dim, keys, one), "float32", time=None, feature=None)
    single = attention_maps(Tensor(data[:, 0, 0, :, None], spec, lengths), "x", option="search_plot")
    assert [maps.shape for maps in single] == [(1, 1, 2), (1, 1, 5)]


def test_kept_frames():
    """Only the layer in the loop is marked, in a copy."""
    loop = {"class": "rec", "unit": {"weights": {"class": "linear"}, "x": {"class": "linear"}}}
    net = {
        "output": loop,
        "sub": {"class": "subnetwork", "subnetwork": {"loop": loop, "y": {}}},
        "lstm": {"unit": "lstm"},
    }
    before = repr(net)
    made = with_kept_frames(net, ["output/weights", "output", "output/none", "lstm/x", "sub/y", "none/x", "sub/loop/x"])
    assert made["output"]["unit"] == {"weights": {"class": "linear", "is_output_layer": True}, "x": {"class": "linear"}}
    assert made["sub"]["subnetwork"]["loop"]["unit"]["x"]["is_output_layer"] and repr(net) == before
    assert made["sub"]["subnetwork"]["y"] == {} and made["lstm"] == net["lstm"]


def test_labels_of_queries():
    assert of_queries(["a", "b"], 2) == ["a", "b"] and of_queries(["a"], 2) == ["a", "</s>"]
    assert of_queries(["a"], 3) is None and of_queries(["a", "b"], 1) is None
