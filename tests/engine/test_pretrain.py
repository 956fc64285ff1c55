"""Pretraining: which net each epoch trains, and what it takes over from the one before."""

import re

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.models.network_source import NetworkSource
from returnn_lite.engine.models.pretrain import Pretrain, PretrainOptions, WrapEpochValue, repetitions
from returnn_lite.engine.models.take_over import copy_blocks
from returnn_lite.errors import ConfigError
from tests.engine.helpers import rnn

STACK = {
    "h1": {"class": "linear", "n_out": 3, "from": "data"},
    "h2": {"class": "linear", "n_out": 3, "from": ["h1"]},
    "drop": {"class": "dropout", "from": ["h2"], "trainable": False},
    "h3": {"class": "linear", "n_out": 3, "from": ["drop"]},
    "output": {"class": "softmax", "loss": "ce", "from": ["h3"]},
}


def layers(**options):
    """The layers of each step of the default network's pretraining."""
    return [sorted(step) for step in Pretrain(PretrainOptions(**options), STACK).steps]


def test_from_output_grows_at_the_top():
    assert layers() == [["h1", "output"], ["drop", "h1", "h2", "output"], sorted(STACK)]
    steps = Pretrain(PretrainOptions(), STACK).steps
    assert [step["output"]["from"] for step in steps] == [["h1"], ["drop"], ["h3"]]


def test_from_input_grows_at_the_bottom():
    steps = Pretrain(PretrainOptions(construction_algo="from_input"), STACK).steps
    lowest = [next(name for name in step if step[name]["from"] in ("data", ["data"])) for step in steps]
    assert lowest == ["drop", "h2", "h1"]  # a step from "h3" alone would only lack a layer that is not trained


def test_no_modifications():
    assert layers(construction_algo="no_network_modifications") == [sorted(STACK)]


def test_a_function_gets_copies():
    seen = []

    def algorithm(idx, net_dict):
        seen.append(net_dict["h1"]["n_out"])
        net_dict["h1"]["n_out"] = idx + 1
        return net_dict if idx < 2 else None

    steps = Pretrain(PretrainOptions(construction_algo=algorithm), STACK).steps
    assert seen == [3, 3, 3] and [step["h1"]["n_out"] for step in steps] == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (None, [1, 1, 1]),
        (2, [2, 2, 2]),
        ([3, 1], [3, 1, 1]),
        ({0: 4, "default": 2, "final": 1}, [4, 2, 1]),
        ({"default": 0, "final": 6}, [0, 0, 6]),
    ],
)
def test_repetitions(value, counts):
    assert repetitions(value, [{}, {}, {}]) == counts


def test_a_step_says_its_own_repetition():
    assert repetitions(2, [{"#repetition": 1}, {}]) == [1, 2]


def test_epoch_values_at_any_depth():
    value = WrapEpochValue(lambda epoch: epoch * 0.5)
    net = {"output": {"class": "rec", "from": "data", "unit": {"x": {"opts": [(value, 1)]}}}}
    options = PretrainOptions(construction_algo="no_network_modifications", repetitions=2)
    pretrain = Pretrain(options, net)
    found = [pretrain.description(epoch)["output"]["unit"]["x"]["opts"] for epoch in (1, 2, 9)]
    assert found == [[(0.5, 1)], [(1.0, 1)], [(1.0, 1)]]


def test_epoch_values_without_pretraining_are_those_of_the_epoch():
    source = NetworkSource(
        Config({"network": {"output": {"class": "copy", "x": WrapEpochValue(lambda epoch: -epoch)}}})
    )
    assert [source.describe(epoch)["output"]["x"] for epoch in (1, 7)] == [-1, -7]


@pytest.mark.parametrize(
    ("options", "description", "of_h1", "of_output"),
    [
        ({}, {}, None, None),
        ({"copy_param_mode": "subset"}, {}, "subset", "subset"),
        ({"copy_param_mode": "subset"}, {"#copy_param_mode": "reset"}, "reset", "reset"),
        ({"copy_param_mode": "subset", "copy_output_layer": False}, {}, "subset", "reset"),
        ({"copy_output_layer": True}, {}, None, "ifpossible"),
        ({"copy_output_layer": "subset"}, {}, None, "subset"),
    ],
)
def test_how_parameters_are_taken_over(options, description, of_h1, of_output):
    source = NetworkSource(Config({"pretrain": options or True, "network": STACK}))
    mode = source.copy_modes(description)
    assert (mode("h1/W"), mode("output/W")) == (of_h1, of_output)


def test_wrong_options():
    with pytest.raises(ConfigError, match='unknown option "repetition"; did you mean "repetitions"'):
        NetworkSource(Config({"pretrain": {"repetition": 2}, "network": STACK}))
    with pytest.raises(ConfigError, match="copy_param_mode"):
        NetworkSource(Config({"pretrain": {"copy_param_mode": "subsets"}, "network": STACK}))
    with pytest.raises(ConfigError, match='did you mean "from_output"'):
        NetworkSource(Config({"pretrain": {"construction_algo": "from_outputs"}, "network": STACK}))


def test_globals_complete_the_options():
    source = NetworkSource(Config({"pretrain": "default", "pretrain_repetitions": 2, "network": STACK}))
    assert source.pretrain_epochs == 6
    assert source.form.title(6) == "pretrain epoch 6"


def test_blocks_are_copied_one_by_one():
    old, new = torch.arange(4.0)[None] + 1, torch.zeros(1, 6)
    copy_blocks(old, new, ((1,), (2, 2)), ((1,), (3, 3)))
    assert new.tolist() == [[1, 2, 0, 3, 4, 0]]
    new = torch.zeros(1, 6)
    copy_blocks(old, new, None, None)
    assert new.tolist() == [[1, 2, 3, 4, 0, 0]]
    new = torch.zeros(1, 6)
    copy_blocks(old, new, ((1,), (4,)), ((1,), (2, 4)))
    assert new.tolist() == [[0, 0, 1, 2, 3, 4]]


CONFIG = """#!rnn.py
import numpy
from Pretrain import WrapEpochValue
task, device, log_verbosity = "train", "cpu", 5
rng = numpy.random.RandomState(1)
seqs = [{"data": rng.randn(4, 3).astype("float32"), "classes": rng.randint(0, 2, (4,))} for _ in range(6)]
train = dev = {"class": "StaticDataset", "data": seqs, "output_dim": {"data": (3, 2), "classes": (2, 1)}}
extern_data = {"data": {"dim": 3}, "classes": {"dim": 2, "sparse": True}}
lstm = {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data"}
network = {
    "fw": lstm, "bw": dict(lstm, direction=-1, dropout=WrapEpochValue(lambda epoch: 0.1 / epoch)),
    "output": {"class": "softmax", "loss": "ce", "from": ["fw", "bw"]},
}
def grow(idx, net_dict):
    if idx == 0:
        net_dict["#config"] = {"batch_size": 8}
        net_dict["fw"]["n_out"] = net_dict["bw"]["n_out"] = 2
        return net_dict
pretrain = {"construction_algo": grow, "repetitions": [1, 1], "copy_param_mode": "subset"}
pretrain_learning_rate, learning_rate, learning_rate_control = 0.0, 0.01, "constant"
batch_size, num_epochs, model, learning_rate_file = 16, 3, "out/model", "out/rates"
"""


def test_a_run(tmp_path):
    (tmp_path / "my.config").write_text(CONFIG)
    done = rnn("my.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    starts = re.findall(r"^start .*epoch.*", done.stdout, re.MULTILINE)
    assert starts[1:] == [
        "start pretrain epoch 1 with learning rate 0.0 ...",
        "start pretrain epoch 2 with learning rate 0.0 ...",
        "start epoch 3 with learning rate 0.01 ...",
    ]
    assert "pretrain epoch 1 'dev' eval, step 0" in done.stdout and "train epoch 3, step 0" in done.stdout
    assert "Update config key 'batch_size' for epoch 1: 16 -> 8" in done.stdout
    first, second = (
        torch.load(tmp_path / "out" / f"model.pretrain.00{n}.pt", weights_only=True)["model"] for n in (1, 2)
    )
    assert (tmp_path / "out" / "model.003.pt").exists()
    small, big = first["fw/rec/W"], second["fw/rec/W"]  # learning rate 0: only the copy changes anything
    for gate in range(4):
        assert torch.equal(big[:, gate * 4 : gate * 4 + 2], small[:, gate * 2 : gate * 2 + 2])
    assert torch.equal(second["output/W"][[0, 1, 4, 5]], first["output/W"])
    again = rnn("my.config", "++num_epochs", "4", folder=tmp_path)
    assert again.returncode == 0 and "start epoch 4" in again.stdout, again.stderr
