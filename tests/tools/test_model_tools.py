"""Tools around model files: what is in them, how many parameters, which are worth keeping."""

import numpy as np
import pytest
import torch

from returnn_lite.engine.checkpoints.checkpoint import save_model
from returnn_lite.schedule.lr_file import Record, write
from returnn_lite.tools.cleanup_models import main as cleanup
from returnn_lite.tools.count_params import by_part
from returnn_lite.tools.count_params import main as count
from returnn_lite.tools.inspect_checkpoint import Statistics
from returnn_lite.tools.inspect_checkpoint import main as inspect

CONFIG = """#!rnn.py
extern_data = {"data": {"dim": 3}, "classes": {"dim": 4, "sparse": True}}
network = {
    "hidden": {"class": "linear", "n_out": 5, "activation": "tanh", "from": "data", "trainable": False},
    "output": {"class": "softmax", "from": "hidden", "loss": "ce", "target": "classes"},
}
"""


@pytest.fixture
def models(tmp_path):
    """Two models of one network."""
    for epoch in (1, 2):
        params = {"hidden/W": torch.arange(6.0).reshape(2, 3) * epoch, "hidden/b": torch.tensor([1.0, torch.nan, 3.0])}
        params["output/W"] = torch.ones(3, 4)
        save_model(str(tmp_path / f"m.00{epoch}"), params, info={"epoch": epoch, "step": 10 * epoch})
    return tmp_path


def test_statistics():
    numbers = np.array([[1.0, -3.0], [2.0, 4.0]])
    found = Statistics.of(torch.tensor(numbers))
    assert (found.mean, found.min, found.max, found.bad) == (1, -3, 4, 0)
    np.testing.assert_allclose([found.std_dev, found.norm], [numbers.std(), np.linalg.norm(numbers)])
    assert Statistics.of(torch.tensor([torch.nan, 2.0, torch.inf])) == Statistics(2, 0, 2, 2, 2, 2)
    assert Statistics.of(torch.zeros(0, 3)) == Statistics(0, 0, 0, 0, 0, 0)


def test_inspect(models, capsys):
    assert inspect([str(models / "m.001"), "--stats", "--params", "hidden/*"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:4] == ["hidden/W", "float32", "(2,", "3)"] and "mean 2.5" in shown[0]
    assert "NOT FINITE: 1" in shown[1] and shown[2] == "2 entries, 9 numbers"
    assert inspect([str(models / "m.001.pt"), "--values", "--params", "hidden/W"]) == 0
    assert "[[0. 1. 2.]" in capsys.readouterr().out


def test_compare(models, capsys):
    first, second = str(models / "m.001"), str(models / "m.002")
    assert inspect([first, "--compare", second, "--params", "hidden/W", "output/W"]) == 0
    assert capsys.readouterr().out == "hidden/W  differs by at most 5, where the largest value is 5\n"
    assert inspect([first, "--compare", first, "--params", "output/W"]) == 0
    assert capsys.readouterr().out == "the 1 entries are equal\n"
    save_model(str(models / "n"), {"output/W": torch.ones(3, 5), "x": torch.ones(1)}, info={"epoch": 1, "step": 10})
    assert inspect([first, "--compare", str(models / "n")]) == 0
    assert "output/W  shape (3, 4) and (3, 5)\nx  only in the second\n" in capsys.readouterr().out


def test_count(models, capsys):
    assert count([str(models / "m.001")]) == 0
    assert capsys.readouterr().out == (
        "output           12  57.1%\nhidden            9  42.9%\n21 numbers in 3 parameters\n"
    )
    assert count([str(models / "m.001"), "--depth", "0"]) == 0
    assert capsys.readouterr().out == "21 numbers in 3 parameters\n"
    assert by_part({"a.b.c": 1, "a.b.d": 2, "a/x": 4}, 2) == {"a/x": 4, "a.b": 3}


def test_count_of_a_config(tmp_path, capsys):
    (tmp_path / "config").write_text(CONFIG)
    assert count([str(tmp_path / "config"), "--depth", "2"]) == 0
    shown = capsys.readouterr().out
    assert "hidden/W" in shown and shown.endswith("44 numbers in 4 parameters, 24 of them trained\n")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Six epochs of a training, and their scores."""
    monkeypatch.chdir(tmp_path)
    for epoch in range(1, 7):
        save_model(f"m.{epoch:03}", {"w": torch.ones(2)}, info={"epoch": epoch, "step": epoch})
    write("rates", {epoch: Record(0.1, {"dev_score": abs(epoch - 3.0)}) for epoch in range(1, 7)})
    (tmp_path / "config").write_text('model = "m"\nlearning_rate_file = "rates"\n')
    return tmp_path


def test_cleanup(trained, capsys):
    (trained / "config").write_text('#!rnn.py\nmodel, learning_rate_file = "m", "rates"\n')
    options = ["--config", "config", "--keep_last_n", "1", "--keep_best_n", "1", "--keep", "1"]
    assert cleanup([*options, "--dry_run"]) == 0
    assert capsys.readouterr().out == "to keep: [1, 3, 6]\nto delete: [2, 4, 5]\n"
    assert len(list(trained.glob("m.*.pt"))) == 6
    assert cleanup(options) == 1
    assert "--yes: must be given where no terminal" in capsys.readouterr().err
    assert cleanup([*options, "--yes"]) == 0
    assert sorted(path.name for path in trained.glob("m.*.pt")) == ["m.001.pt", "m.003.pt", "m.006.pt"]


@pytest.mark.parametrize("main, arguments, message", [
    (inspect, ["nothing"], "must name a model file, but 'nothing' does not exist"),
    (inspect, ["m.001", "--params", "v"], 'no entry is called "v"'),
    (count, ["nothing"], "must name a model file, but 'nothing' does not exist"),
    (count, ["m.001", "--depth", "-1"], "--depth: must be at least 0, but is -1"),
    (cleanup, [], "--model: must be given"),
    (cleanup, ["--model", "x"], "--model: no models with this name: x"),
    (cleanup, ["--model", "m"], "--learning_rate_file: must be given"),
    (cleanup, ["--model", "m", "--learning_rate_file", "x"], "--learning_rate_file: file x does not exist"),
    (cleanup, ["--model", "m", "--learning_rate_file", "rates", "--keep_last_n", "0"], "keep_last_n"),
])  # fmt: skip
def test_errors(trained, main, arguments, message, capsys):
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
