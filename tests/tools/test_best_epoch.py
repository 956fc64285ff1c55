"""The tool that finds the best epoch."""

import pytest

from returnn_lite.schedule.lr_file import Record, write
from returnn_lite.tools.best_epoch import main

EPOCHS = {
    1: Record(0.1, {"dev_score": 3.0, "dev_error": 0.1, "train_score": 2.0}),
    2: Record(0.1, {"dev_score": 1.0, "dev_error": 0.3}),
    3: Record(0.1, {"dev_score": float("nan"), "dev_error": 0.1}),
    4: Record(0.1, {}),
}


@pytest.fixture
def file(tmp_path):
    write(str(tmp_path / "learning_rates"), EPOCHS)
    return str(tmp_path / "learning_rates")


def test_by_the_score_of_the_training_or_a_key(file, capsys):
    assert main([file]) == main([file, "--key", "dev_error"]) == 0
    assert capsys.readouterr().out == "2\n1\n"


def test_only_models_that_are_there(file, tmp_path, capsys):
    for epoch in (1, 3, 4):
        (tmp_path / f"model.00{epoch}.pt").touch()
    assert main([file, "--model", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/model.001\n"
    assert main([file, "--model", str(tmp_path / "other")]) == 1
    assert "--model: no model exists for the epochs" in capsys.readouterr().err


def test_errors(file, tmp_path, capsys):
    assert main([file, "--key", "dev_scor"]) == 1
    assert 'no epoch has the score "dev_scor"; did you mean "dev_score"?' in capsys.readouterr().err
    (tmp_path / "bad").write_text("{1: exec('x')}")
    assert main([str(tmp_path / "bad")]) == 1 and main([str(tmp_path / "none")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
