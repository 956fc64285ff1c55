"""The tool that converts model files."""

import numpy as np
import pytest
import torch

from returnn_lite.compat.tf_checkpoint import read_checkpoint
from returnn_lite.engine.checkpoints.checkpoint import read_model, save_model
from returnn_lite.tools.convert_checkpoint import main

PARAMS = {"l/W": torch.arange(6.0).reshape(2, 3), "l/b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def base(tmp_path):
    save_model(str(tmp_path / "model.003"), PARAMS, info={"epoch": 3, "step": 7})
    return str(tmp_path / "model.003")


def test_there_and_back(base, tmp_path, capsys):
    foreign, back = str(tmp_path / "foreign.003"), str(tmp_path / "back.003")
    assert main([base + ".pt", foreign]) == 0
    assert capsys.readouterr().out == f"{foreign}.index: 3 entries\n"
    arrays = read_checkpoint(foreign)
    assert np.array_equal(arrays["l/W"], PARAMS["l/W"].numpy()) and arrays["l/b"].dtype == "float32"
    assert arrays["global_step"] == 7
    assert main([foreign + ".index", back]) == 0
    assert torch.equal(read_model(back)["l/W"], PARAMS["l/W"]) and read_model(back)["global_step"] == 7
    assert torch.load(back + ".pt", weights_only=True)["epoch"] == 3


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".index"])
def test_suffix_of_the_output(base, tmp_path, suffix):
    name = str(tmp_path / "out") + suffix
    assert main([base, name]) == 0
    assert torch.equal(read_model(name)["l/W"], PARAMS["l/W"])


def test_show(base, capsys):
    assert main([base]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["global_step  int64    ()", "l/W          float32  (2, 3)", "l/b          bfloat16 (3,)"]


def test_errors(tmp_path, capsys):
    assert main([str(tmp_path / "missing"), str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "bad.index").write_bytes(b"no")
    assert main([str(tmp_path / "bad"), str(tmp_path / "out")]) == 1
    assert "magic number" in capsys.readouterr().err
