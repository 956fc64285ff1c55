"""Tools that run a network over a dataset: outputs, and attention weights as pictures."""

import sys

import h5py
import numpy as np
import pytest

from returnn_lite.library import load
from returnn_lite.tools.attention_pictures import main as pictures
from returnn_lite.tools.dump_forward import main as dump

CONFIG = """#!rnn.py
import numpy
rng = numpy.random.RandomState(0)
seqs = [
    {"data": rng.randn(4 * n, 3).astype("float32"), "classes": rng.randint(0, 5, n).astype("int32")} for n in (2, 3, 1)
]
dev = {"class": "StaticDataset", "data": seqs, "output_dim": {"classes": (5, 1)}}
extern_data = {"data": {"dim": 3}, "classes": {"dim": 5, "sparse": True}}
network = {
    "encoder": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "data"},
    "output": {"class": "rec", "from": [], "target": "classes", "unit": {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 0},
        "state": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "prev:output"},
        "energy": {"class": "dot", "from": ["base:encoder", "state"], "red1": "f", "red2": "f", "var1": "t",
            "var2": None, "add_var2_if_empty": False},
        "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": "stag:data"},
        "att": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
        "prob": {"class": "softmax", "from": ["state", "att"], "target": "classes", "loss": "ce"},
    }},
}
batch_size, max_seqs = 20, 2
allow_random_model_init = True
random_seed = 3
device = "cpu"
log_verbosity = 1
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text(CONFIG)
    return tmp_path


def test_what_is_printed(config, capsys):
    assert dump(["config", "--layers", "encoder", "output/weights", "--shapes"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "seq-2 encoder (4, 4)", "seq-2 output/weights (1, 4)", "seq-0 encoder (8, 4)", "seq-0 output/weights (2, 8)",
        "seq-1 encoder (12, 4)", "seq-1 output/weights (3, 12)",
    ]  # fmt: skip
    assert dump(["config", "--layers", "encoder", "--startseq", "1", "--endseq", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "seq-0 encoder (8, 4)" and len(shown) == 9 and shown[1].startswith("[[")


def test_files_hold_what_the_library_gives(config, capsys):
    assert dump(["config", "--layers", "encoder", "--out", "x.npz"]) == 0
    assert dump(["config", "--layers", "encoder", "output/state", "--out", "x.hdf", "--batch_size", "12"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "x.npz: encoder of 3 sequences", "x.hdf: encoder, output/state of 3 sequences",
    ]  # fmt: skip
    found, model, data = np.load("x.npz"), load("config"), {}
    exec(CONFIG, data)
    for i, seq in enumerate(data["seqs"]):
        encoder = model.forward(seq, layers=("encoder",))["encoder"].array
        np.testing.assert_allclose(found[f"seq-{i}/encoder"], encoder, rtol=1e-5)
    with h5py.File("x.hdf") as file:
        np.testing.assert_allclose(file["inputs"][:4], found["seq-2/encoder"], rtol=1e-5)
        assert file["inputs"].shape == (24, 4) and file["targets/data/output.state"].shape == (6, 4)


def test_pictures(config, capsys):
    pytest.importorskip("matplotlib")
    assert pictures(["config", "--layers", "output/weights", "--out", "png", "--numpy"]) == 0
    assert capsys.readouterr().out == "png: 3 pictures\n"
    names = [f"seq-{i}.output_weights.{suffix}" for i in range(3) for suffix in ("npy", "png")]
    assert sorted(path.name for path in (config / "png").iterdir()) == names
    maps = np.load("png/seq-1.output_weights.npy")
    assert maps.shape == (1, 3, 12)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert (config / "png" / names[1]).read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("main, arguments, message", [
    (dump, ["--layers", "encodr"], 'did you mean "encoder"'),
    (dump, ["--layers", "encoder", "--out", "x.txt"], "--out: must end in .npz or .hdf, but is x.txt"),
    (dump, ["--layers", "output/weights", "--out", "x.hdf"], "output/weights have the shapes (4,) and (8,)"),
    (dump, ["--layers", "encoder", "--startseq", "3"], "--startseq: must be below the number of sequences, 3"),
    (dump, ["--layers", "encoder", "--dataset", "test"], "--dataset: the config has no dataset `test`"),
    (dump, ["--layers", "encoder", "--load", "none"], "'none' does not exist"),
    (pictures, ["--layers", "encoder", "--out", "png", "--dataset", "{'class': 'X'}"], 'dataset class "X" not found'),
])  # fmt: skip
def test_errors(config, main, arguments, message, capsys):
    assert main(["config", *arguments]) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_pictures_need_matplotlib(config, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert pictures(["config", "--layers", "encoder", "--out", "png"]) == 1
    assert capsys.readouterr().err == 'pictures need matplotlib: pip install "returnn-lite[plot]"\n'
