"""`load`, `train`, `Model`: a trained model as a function of arrays."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

import returnn_lite
from returnn_lite import load, train
from returnn_lite.errors import ConfigError

NETWORK = {
    "lstm": {"class": "rec", "unit": "lstm", "n_out": 8, "from": "data"},
    "output": {"class": "softmax", "from": "lstm", "loss": "ce", "target": "classes"},
}
SEARCH = {
    "encoder": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data"},
    "output": {
        "class": "rec", "from": "encoder", "target": "classes",
        "unit": {
            "e": {"class": "linear", "n_out": 4, "from": "output"},
            "p": {"class": "softmax", "from": ["data:source", "prev:e"], "target": "classes", "loss": "ce"},
            "output": {"class": "choice", "from": "p", "target": "classes", "beam_size": 3, "initial_output": 0},
        },
    },
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    dataset = {"class": "Task12AXDataset", "num_seqs": 12, "fixed_random_seed": 1}
    classes = {"dim": 2, "sparse": True, "vocab": {"class": "Vocabulary", "labels": ["L", "R"]}}
    return {
        "train": dataset, "dev": dataset, "batch_size": 500, "extern_data": {"data": {"dim": 9}, "classes": classes},
        "network": NETWORK, "model": str(tmp_path / "m"), "num_epochs": 2,
        "optimizer": {"class": "adam"}, "learning_rate": 0.01,
    }  # fmt: skip


@pytest.fixture
def trained(config):
    train(config)
    return config


def test_train_returns_the_scores_of_each_epoch(config):
    scores = train(config, num_epochs=1)
    assert list(scores) == [1] and {"train_score", "dev_score"} <= set(scores[1])
    again = train(config)  # goes on
    assert list(again) == [1, 2]


def test_one_sequence_is_the_same_as_in_a_batch(trained):
    model = load(trained)
    assert model.epoch == 2
    x = np.random.default_rng(1).normal(size=(3, 6, 9)).astype("float32")
    lengths = [6, 4, 1]
    batch = model(x, lengths)
    assert batch.shape == (3, 6, 2) and np.allclose(batch[0].sum(-1), 1)
    for row, whole, n in zip(x, batch, lengths, strict=True):
        np.testing.assert_allclose(model(row[:n]), whole[:n], atol=1e-6)


def test_tensors_give_tensors(trained):
    out = load(trained)(torch.zeros(5, 9, dtype=torch.float64))
    assert isinstance(out, torch.Tensor) and out.shape == (5, 2) and not out.requires_grad


def test_any_layer_can_be_asked_for(trained):
    model = load(trained, epoch=1)
    before = model(np.ones((4, 9)))
    out = model.forward({"data": np.ones((2, 4, 9))}, [4, 2], layers=["lstm"])
    assert out["lstm"].array.shape == (2, 4, 8) and out["lstm"].lengths.tolist() == [4, 2]
    np.testing.assert_array_equal(model(np.ones((4, 9))), before)


def test_layers_inside_of_a_loop_are_built_once(trained):
    model = load({**trained, "network": SEARCH, "allow_random_model_init": True, "model": None})
    x = {"data": np.ones((2, 4, 9)), "classes": np.zeros((2, 4), "int32")}
    first = model.forward(x, {"data": [4, 2], "classes": [4, 2]}, layers=["output/p"])["output/p"]
    assert first.array.shape[-1] == 2 and first.array.shape[:2] == (2, 4)
    loaded = model._loaded[False]
    model.forward(x, {"data": [4, 2], "classes": [4, 2]}, layers=["output/p"])
    model.forward(x, {"data": [4, 2], "classes": [4, 2]}, layers=["encoder"])
    assert model._loaded[False] is loaded


def test_a_file_and_an_epoch(trained, tmp_path):
    x = np.ones((4, 9))
    first, second = load(trained, epoch=1)(x), load(trained)(x)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(load(trained, file=tmp_path / "m.001.pt")(x), first)


def test_a_config_file(trained, tmp_path):
    file = tmp_path / "my.config"
    options = {key: value for key, value in trained.items()}
    file.write_text("#!rnn.py\n" + "".join(f"{key} = {value!r}\n" for key, value in options.items()))
    x = np.ones((4, 9))
    np.testing.assert_array_equal(load(file)(x), load(trained)(x))
    np.testing.assert_array_equal(load(str(file), epoch=1)(x), load(trained, epoch=1)(x))


def test_search(trained):
    trained = {**trained, "network": SEARCH, "model": trained["model"] + "s"}
    train(trained)
    model = load(trained)
    x = np.random.default_rng(1).normal(size=(2, 5, 9))
    found = model.search(x, [5, 3])
    assert [len(of_seq) for of_seq in found] == [3, 3]
    assert [len(of_seq[0].labels) for of_seq in found] == [5, 3]
    scores = [h.score for h in found[0]]
    assert scores == sorted(scores, reverse=True)
    best = found[1][0]
    assert best.text.split() == [("L", "R")[i] for i in best.labels]
    for single, of_seq in zip(model.search(x[0]), found[0], strict=True):  # the longest: scores do not depend on others
        np.testing.assert_array_equal(single.labels, of_seq.labels)
        assert single.score == pytest.approx(of_seq.score, abs=1e-5)


def test_search_of_ctc(config):
    """Of the output itself, and by layers that decode it: the best path, one hypothesis, several."""
    net = {"output": {"class": "softmax", "n_out": 3, "from": "data", "loss": "ctc", "target": "classes"}}
    decode = {"class": "ctc_decode", "from": "output", "target": "classes"}
    net |= {"greedy": decode, "beam": {**decode, "beam_size": 4}, "all": {**decode, "beam_size": 4, "keep_beams": True}}
    model = load({**config, "network": net}, allow_random_model_init=True)
    x = np.random.default_rng(3).normal(size=(2, 7, 9)).astype("float32")
    probs = model(x, [7, 5])
    best, greedy, beam, every = (model.search(x, [7, 5], layer=layer) for layer in ("output", "greedy", "beam", "all"))
    for b, frames in enumerate((7, 5)):
        path = probs[b, :frames].argmax(-1).tolist()
        labels = [c for i, c in enumerate(path) if c != 2 and (i == 0 or path[i - 1] != c)]
        assert best[b][0].labels.tolist() == greedy[b][0].labels.tolist() == labels and len(best[b]) == 1
        assert best[b][0].text == " ".join("LR"[i] for i in labels)
        score = np.log(probs[b, :frames].max(-1)).sum()
        assert best[b][0].score == pytest.approx(score, rel=1e-4) == greedy[b][0].score
        assert len(every[b]) == 4 and beam[b][0].labels.tolist() == every[b][0].labels.tolist()
        assert beam[b][0].score == pytest.approx(every[b][0].score) and beam[b][0].score >= score - 1e-4


def test_a_network_without_search_says_so(trained):
    with pytest.raises(ConfigError, match="must come out of a search"):
        load(trained).search(np.ones((3, 9)))


def test_a_torch_model(config, tmp_path):
    file = tmp_path / "torch.config"
    file.write_text(f"""#!rnn.py
import torch
from returnn.tensor import batch_dim
from returnn.frontend import get_run_ctx
backend = "torch"
train = dev = {config["train"]!r}
extern_data = {{"data": {{"dim": 9}}, "classes": {{"dim": 2, "sparse": True}}}}
batch_size, num_epochs, learning_rate, model = 500, 1, 0.01, {config["model"]!r}
def get_model(**kwargs):
    return torch.nn.Linear(9, 2)
def train_step(*, model, extern_data, **kwargs):
    out = model(extern_data["data"].raw_tensor)
    loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), extern_data["classes"].raw_tensor.flatten().long())
    get_run_ctx().mark_as_loss(loss, "ce")
def forward_step(*, model, extern_data, **kwargs):
    from returnn.tensor import Dim  # only there while the config runs
    x = extern_data["data"]
    get_run_ctx().mark_as_output(model(x.raw_tensor), "out", dims=[*x.dims[:2], Dim(2, name="c")])
""")
    train(file)
    model = load(file)
    x = np.random.default_rng(1).normal(size=(4, 9)).astype("float32")
    weight, bias = (p.detach().numpy() for p in model.net.model.parameters())
    np.testing.assert_allclose(model(x), x @ weight.T + bias, atol=1e-5)
    assert "returnn" not in sys.modules


@pytest.mark.parametrize("call, message", [
    (lambda m: m.forward({"dta": np.ones((3, 9))}), 'did you mean "data"'),
    (lambda m: m(np.ones((3, 8))), "must be that of the data"),
    (lambda m: m(np.ones((2, 3, 9)), [3]), "one number per sequence"),
    (lambda m: m(np.ones((3, 9)), layer="lstn"), "lstn"),
])  # fmt: skip
def test_wrong_calls(trained, call, message):
    with pytest.raises(ConfigError, match=message):
        call(load(trained))


def test_an_epoch_that_is_not_there(trained):
    with pytest.raises(ConfigError, match="7"):
        load(trained, epoch=7)


def test_messages_go_to_logging(config, caplog):
    with caplog.at_level(logging.INFO, logger="returnn_lite"):
        train(config, num_epochs=1)
    assert any("epoch 1" in record.message for record in caplog.records)
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_the_names_of_the_package():
    assert {"load", "train", "Config", "Network"} <= set(dir(returnn_lite))
    for name in set(returnn_lite.__all__) - {"__version__"}:
        assert getattr(returnn_lite, name).__doc__
    code = "import sys, returnn_lite; dir(returnn_lite); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
