"""Wrong configs: one clear first line, exit code 1, nothing half-written."""

import re

import pytest

from returnn_lite.cli import main
from tests.engine.helpers import CONFIG_FILE, dataset, network


def layer(**changes):
    """The net with another hidden layer; a value None takes the option away."""
    net = network()
    net["h"] = {key: value for key, value in {**net["h"], **changes}.items() if value is not None}
    return {"network": net}


def output(**changes):
    net = network()
    net["output"] = {key: value for key, value in {**net["output"], **changes}.items() if value is not None}
    return {"network": net}


def recurrent(unit="lstm"):
    return {**network(), "h": {"class": "rec", "unit": unit, "n_out": 3, "from": "data"}}


def one_changed(classes=None, shorter=0):
    """Three sequences, the second with a wrong class or too few of them."""
    made = dataset(3, 1)["data"]
    made[1]["classes"] = made[1]["classes"][shorter:].copy()
    if classes is not None:
        made[1]["classes"][0] = classes
    return made


LOOP = {"a": {"class": "linear", "from": "b", "n_out": 3}, "b": {"class": "linear", "from": "a", "n_out": 3}}

# name -> (changes of the config, pattern of the first line on stderr)
CASES = {
    "unknown layer class": (layer(**{"class": "linaer"}), r'network\["h"\]: .*linaer.*did you mean "linear"'),
    "unknown layer option": (layer(activatoin="relu"), r'network\["h"\].*"?activatoin.*did you mean "activation"'),
    "missing class": (layer(**{"class": None}), r'network\["h"\].*class'),
    "missing n_out": (layer(n_out=None), r'network\["h"\].*`?n_out`?'),
    "unknown activation": (layer(activation="rleu"), r'network\["h"\].*rleu.*did you mean "relu"'),
    "missing from": ({**layer(**{"from": None}), "behavior_version": 12}, r'network\["h"\].*from'),
    "source that is not there": (output(**{"from": "hh"}), r'network\["output"\].*hh.*did you mean "h"'),
    "dependency loop": (
        {"network": {**network(), **LOOP, "output": {**network()["output"], "from": "a"}}},
        r"network.*(loop|itself|cycl)",
    ),
    "layer that is no dict": ({"network": {**network(), "output": "softmax"}}, r'network\["output"\].*must be a dict'),
    "unknown loss": (output(loss="cross_entropy"), r'network\["output"\].*cross_entropy'),
    "unknown target": (output(target="clases"), r".*clases.*did you mean.*classes"),
    "dimensions do not fit": (output(n_out=7), r'network\["output"\].*(7|4).*(4|7)'),
    "network is no dict": ({"network": [1, 2]}, r"network: `network` must be a dict"),
    "mixed precision": ({"torch_amp": "bfloat61"}, r'torch_amp: .*"bfloat16", "float16".*did you mean "bfloat16"'),
    "scale of gradients": ({"grad_scaler": {"init_scal": 2}}, r'grad_scaler\["init_scal"\]: .*mean "init_scale"'),
    "no scale of gradients": ({"grad_scaler": 3}, r"grad_scaler: must be a dict of options"),
    "wrong scale of gradients": ({"grad_scaler": {"growth_factor": 0.5}}, r"grad_scaler: The growth factor must be"),
    "norm of gradients": ({"log_grad_norm": -1}, r"log_grad_norm: must be True or a number above 0"),
    "hook": ({"epoch_start": 3}, r"epoch_start: must be a function"),
    "one hook": ({"load_model_post_hooks": 3}, r"load_model_post_hooks: must be a list of functions"),
    "no network": ({"network": None}, r"network: `network` must be a dict"),
    "extern_data of another size": (
        {"extern_data": {"data": {"dim": 5}, "classes": {"dim": 4, "sparse": True}}},
        r"extern_data\['?\"?data.*5",
    ),
    "unknown extern_data option": (
        {"extern_data": {"data": {"dimm": 4}, "classes": {"dim": 4, "sparse": True}}},
        r'extern_data.*dimm.*did you mean "dim"',
    ),
    "data key that the dataset lacks": (
        {
            "extern_data": {"data": {"dim": 4}, "labels": {"dim": 4, "sparse": True}},
            "network": {**output(target="labels")["network"]},
        },
        r'train.*"labels"',
    ),
    "no training data": ({"train": None}, r"train: no train files specified"),
    "unknown dataset class": (
        {"train": {"class": "StaticDatset"}},
        r'train.*StaticDatset.*did you mean "StaticDataset"',
    ),
    "unknown dataset option": (
        {"train": dataset(3, 1, seq_odering="random")},
        r'train.*seq_odering.*did you mean "seq_ordering"',
    ),
    "missing data file": ({"train": "not_there.hdf"}, r".*not_there.hdf.*no such file"),
    "unknown order": ({"train": dataset(3, 1, seq_ordering="randm")}, r".*seq_ordering.*randm"),
    "batch size 0": ({"batch_size": 0}, r"batch_size: .*greater than 0"),
    "batch size of a wrong type": ({"batch_size": "many"}, r"batch_size.*many"),
    "unknown optimizer": ({"optimizer": {"class": "adamm"}}, r"optimizer.*adamm.*did you mean"),
    "unknown optimizer option": (
        {"optimizer": {"class": "adam", "epsilom": 1e-8}},
        r"optimizer.*epsilom.*did you mean",
    ),
    "unknown learning-rate control": ({"learning_rate_control": "newbop"}, r'.*newbop.*did you mean "newbob"'),
    "damaged learning-rate file": ({"learning_rate_file": "damaged"}, r"damaged"),
    "unknown task": ({"task": "trian"}, r'task: unknown task: \'trian\'; did you mean "train"'),
    "unknown device": ({"device": "gpu0"}, r"device: .*'gpu0' instead"),
    "model that is not there": ({"load": "no/model.003", "start_epoch": 1}, r"load: .*'no/model.003' does not exist"),
    "NaN in the data": (
        {"learning_rate": 1e38, "optimizer": None},
        r"Inf/nan score in train epoch 1, step \d+",
    ),
    "class that is none": (
        {"train": {**dataset(3, 1), "data": one_changed(classes=9)}},
        r'train: sequence "seq-1": "classes" must be class indices from 0 to 3, but holds 9',
    ),
    "class that is none, whole sequences": (
        {"train": {**dataset(3, 1), "data": one_changed(classes=-2)}, "network": recurrent(), "batch_size": 1000},
        r'train: sequence "seq-1": "classes" must be class indices from 0 to 3, but holds -2',
    ),
    "frames and classes of other lengths": (
        {"train": {**dataset(3, 1), "data": one_changed(shorter=1)}, "network": recurrent(), "batch_size": 1000},
        r'network\["output"\]: the sequences of output and target must have the same lengths',
    ),
    "unknown cell": ({"network": recurrent("lsmt")}, r'network\["h"\].*lsmt'),
    "unknown clean-up option": ({"cleanup_old_models": {"keep_lst_n": 2}}, r'.*keep_lst_n.*did you mean "keep_last_n"'),
    "task config: without function": ({"task": "config:mian"}, r"task: `mian` must be a function of the config"),
}


@pytest.mark.parametrize("name", CASES)
def test_first_line(name, tmp_path, monkeypatch, capsys):
    changes, pattern = CASES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").write_text("{1: EpochData(")
    text = (
        CONFIG_FILE
        + "from numpy import float32, int32\n"
        + "".join(f"{key} = {_source(value)}\n" for key, value in changes.items())
    )
    (tmp_path / "train.config").write_text(text)
    code = main(["train.config"])
    first = (capsys.readouterr().err.splitlines() or [""])[0]
    assert code == 1
    assert re.match(pattern, first), first
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["damaged", "train.config"]


def _source(value):
    """Python text of a config value; arrays as lists."""
    return repr(value).replace("array(", "numpy.array(") if "array(" in repr(value) else _plain(repr(value))


def _plain(text):
    return re.sub(r"\binf\b", 'float("inf")', text)


@pytest.mark.parametrize("arguments, pattern", [
    (["not_there.config"], "config file not found: 'not_there.config'"),
    (["train.config", "++num_epochs"], r"expect \(\+\+key, value\)"),
    (["train.config", "+num_epochs", "3"], r"expect key prefixed with '\+\+'"),
    (["train.config", "++num_epochs", "many"], "num_epochs"),
    (["train.config", "++batch_size", "many"], "batch_size"),
])  # fmt: skip
def test_wrong_command_lines(arguments, pattern, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.config").write_text(CONFIG_FILE)
    assert main(arguments) == 1
    assert re.match(pattern, capsys.readouterr().err)
