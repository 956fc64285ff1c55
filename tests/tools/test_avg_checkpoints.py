"""The tool that averages epochs."""

import numpy as np
import pytest
import torch

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_checkpoint
from returnn_lite.engine.checkpoints.checkpoint import read_model, save_model
from returnn_lite.tools.avg_checkpoints import main, tf_main, torch_main
from returnn_lite.tools.convert_checkpoint import main as convert


@pytest.fixture
def models(tmp_path):
    for epoch in (1, 2, 3):
        params = {"w": torch.full((2, 2), float(epoch)), "count": torch.tensor(epoch)}
        save_model(str(tmp_path / f"model.{epoch:03d}"), params, info={"epoch": epoch, "step": 10 * epoch})
    return tmp_path / "model"


def test_average(models, capsys):
    assert main([f"{models}.avg.pt", f"{models}.001", f"{models}.003.pt"]) == 0
    assert "average of 2 models" in capsys.readouterr().out
    content = torch.load(f"{models}.avg.pt", weights_only=True)
    assert content["model"]["w"].tolist() == [[2, 2], [2, 2]] and content["model"]["w"].dtype == torch.float32
    assert content["model"]["count"] == 3 and content["epoch"] == 3 and content["step"] == 30
    assert read_model(f"{models}.avg")["global_step"] == 30


def test_epochs(models):
    assert main([f"{models}.mean", "--model", str(models), "--epochs", "1-2,3"]) == 0
    assert read_model(f"{models}.mean")["w"].tolist() == [[2, 2], [2, 2]]


def test_files_of_tensorflow(models):
    """The result is of the first file's format, if its name does not say otherwise."""
    for epoch in (1, 2):
        assert convert([f"{models}.00{epoch}", f"{models}.tf.00{epoch}"]) == 0
    assert main([f"{models}.tf.avg", f"{models}.tf.001", f"{models}.tf.002.index"]) == 0
    arrays = read_checkpoint(f"{models}.tf.avg")
    assert arrays["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]] and arrays["global_step"] == 20
    assert main([f"{models}.tf.avg.pt", f"{models}.tf.001", f"{models}.002"]) == 0
    assert read_model(f"{models}.tf.avg.pt")["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_errors(models, capsys):
    save_model(f"{models}.004", {"v": torch.zeros(2)}, info={"epoch": 4, "step": 1})
    for arguments, message in (
        ([f"{models}.001", f"{models}.004"], "differs in count, v, w"),
        ([f"{models}.009"], "does not exist"),
        ([], "at least one model file"),
        (["--epochs", "x"], "--epochs: must be numbers and ranges such as 10-12,15, but has 'x' instead"),
    ):
        assert main([f"{models}.avg", *arguments]) == 1
        assert message in capsys.readouterr().err


# --- under the names and with the options that other programs use ---


def test_as_torch_avg_checkpoints(models, capsys):
    files = [f"{models}.{epoch:03d}.pt" for epoch in (1, 2)]
    assert torch_main(["--checkpoints", *files, "--output_path", f"{models}.mean.pt"]) == 0
    content = torch.load(f"{models}.mean.pt", weights_only=True)
    assert content["model"]["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]] and content["model"]["count"] == 2
    names = ["--checkpoints", "001,003", "--prefix", f"{models}.", "--postfix", ".pt"]
    assert torch_main([*names, "--output_path", f"{models}.other.pt"]) == 0
    assert read_model(f"{models}.other.pt")["w"].tolist() == [[2, 2], [2, 2]]
    assert torch_main(["--checkpoints", f"{models}.009.pt", "--output_path", f"{models}.no.pt"]) == 1
    assert "model.009.pt" in capsys.readouterr().err


def test_as_tf_avg_checkpoints(tmp_path, capsys):
    """The result may take the place of one of the files; it has all that belongs to a checkpoint."""
    for epoch in (1, 2):
        arrays = {"w": np.full((2,), float(epoch), "float32"), "global_step": np.array(10 * epoch, "int64")}
        write_checkpoint(str(tmp_path / f"epoch.00{epoch}"), arrays)
    options = ["--prefix", f"{tmp_path}/epoch.", "--output_path", f"{tmp_path}/epoch.002"]
    assert tf_main(["--checkpoints", "001,002", *options]) == 0
    got = read_checkpoint(str(tmp_path / "epoch.002"))
    assert got["w"].tolist() == [1.5, 1.5] and got["global_step"] == 20
    assert (tmp_path / "epoch.002.meta").exists()
    assert tf_main(["--checkpoints", "003", *options]) == 1
    assert "epoch.003.index" in capsys.readouterr().err
