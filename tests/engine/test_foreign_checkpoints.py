"""Training, loading and clean-up with TensorFlow's checkpoint files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from returnn_lite.compat.tf_checkpoint import read_checkpoint, write_checkpoint, write_with_companions
from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.checkpoints.find import existing_models
from returnn_lite.errors import ConfigError
from tests.engine.helpers import network, options, run

TF_SUFFIXES = [".data-00000-of-00001", ".index", ".meta"]


def suffixes(folder: Path, base: str = "model.003") -> list[str]:
    return sorted(name[len(base) :] for name in os.listdir(folder) if name.startswith(base))


@pytest.mark.parametrize("name, expected", [
    ("both", [*TF_SUFFIXES, ".opt.pt", ".pt"]),
    ("tf", [*TF_SUFFIXES, ".opt.pt"]),
    ("pt", [".opt.pt", ".pt"]),
])  # fmt: skip
def test_formats(tmp_path, name, expected):
    run(options(tmp_path, checkpoint_format=name))
    assert suffixes(tmp_path) == expected
    assert (tmp_path / "checkpoint").exists() == (name != "pt")
    if name == "both":
        arrays, model = read_checkpoint(str(tmp_path / "model.003")), read_model(str(tmp_path / "model.003.pt"))
        assert arrays.keys() == model.keys() == {"h/W", "h/b", "output/W", "output/b", "global_step"}
        assert all(np.array_equal(value, model[key].numpy()) for key, value in arrays.items())
        assert arrays["global_step"].dtype == "int64" and arrays["global_step"].shape == ()


def test_unknown_format(tmp_path):
    with pytest.raises(ConfigError, match='must be one of "pt", "tf", "both", but is .tff. instead; did you mean "tf"'):
        run(options(tmp_path, checkpoint_format="tff"))


def test_resume_is_exact(tmp_path):
    """Three epochs at once, and in two runs: the optimizer's state lies beside the files."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, checkpoint_format="tf"))
    run(options(parts, checkpoint_format="tf", num_epochs=2))
    run(options(parts, checkpoint_format="tf"))
    want, got = (read_checkpoint(str(folder / "model.003")) for folder in (whole, parts))
    assert all(np.array_equal(got[name], value) for name, value in want.items())


def test_resume_from_files_of_another_program(tmp_path):
    """Its files have no optimizer state: the parameters and the step count go on, the optimizer starts anew."""
    run(options(tmp_path, checkpoint_format="tf", num_epochs=1))
    (tmp_path / "model.001.opt.pt").unlink()
    (tmp_path / "model.001.meta").unlink()
    lines = run(options(tmp_path, checkpoint_format="tf", num_epochs=2))
    assert "note: the model has no optimizer state; the optimizer starts from scratch" in lines
    assert "start training at epoch 2" in lines
    steps = [int(read_checkpoint(str(tmp_path / f"model.00{epoch}"))["global_step"]) for epoch in (1, 2)]
    assert steps[1] > steps[0]


@pytest.mark.parametrize("suffix", ["", ".index", ".meta"])
def test_load(tmp_path, suffix):
    run(options(tmp_path / "a", checkpoint_format="tf"))
    base = str(tmp_path / "a" / "model.003")
    changes = {"num_epochs": 1, "learning_rate": 0.0, "learning_rate_file": None}
    run(options(tmp_path / "b", import_model_train_epoch1=base + suffix, **changes))
    run(options(tmp_path / "c", load=base + suffix, start_epoch=1, **changes))
    want = read_checkpoint(base)
    for folder in "bc":
        got = read_model(str(tmp_path / folder / "model.001"))
        assert all(np.array_equal(got[name].numpy(), want[name]) for name in want if name != "global_step")
        assert int(got["global_step"]) > int(want["global_step"])


@pytest.mark.parametrize("suffix", ["", ".index", ".meta"])
def test_preload(tmp_path, suffix):
    base = str(tmp_path / "m.001")
    arrays = {"pre/W": np.ones((4, 5), "float64"), "pre/b": np.ones(5, "float32"), "note": np.array(b"text")}
    write_with_companions(base, arrays)
    preload = {"x": {"filename": base + suffix, "prefix": "my_", "init_for_train": True, "ignore_missing": True}}
    net = {**network(), "my_pre": {"class": "linear", "n_out": 5, "from": "data", "loss": "as_is", "loss_scale": 0}}
    changes = {"num_epochs": 1, "learning_rate": 0.0, "preload_from_files": preload}
    run(options(tmp_path, network=net, **changes))
    got = read_model(str(tmp_path / "model.001"))
    assert torch.equal(got["my_pre/W"], torch.ones(4, 5))


def test_lstm_of_another_kind(tmp_path):
    """A net with a TF cell starts from a file of the native kind."""
    nets = [
        {
            "l": {"class": "rec", "unit": unit, "unit_opts": opts, "n_out": 5, "from": "data"},
            "output": {"class": "softmax", "loss": "ce", "from": "l", "target": "classes"},
        }
        for unit, opts in (("nativelstm2", {}), ("standardlstm", {"forget_bias": 0.0}))
    ]
    run(options(tmp_path / "a", network=nets[0], checkpoint_format="tf", num_epochs=1))
    base = str(tmp_path / "a" / "model.001")
    lines = [run({**options(tmp_path, network=net), "task": "eval", "load": base}) for net in nets]
    scores = [[line for line in got if "dev: score" in line] for got in lines]
    assert scores[0] and scores[0] == scores[1]
    assert any("l/rec/lstm_cell/kernel is made from l/rec/W, l/rec/W_re" in line for line in lines[1])


def test_clean_up(tmp_path):
    cleanup = {"keep_last_n": 1, "keep_best_n": 0, "keep": []}
    run(options(tmp_path, checkpoint_format="both", cleanup_old_models=cleanup))
    assert list(existing_models(str(tmp_path / "model"), 0)) == [3]
    assert suffixes(tmp_path, "model.001") == []


def test_damaged_file(tmp_path):
    write_checkpoint(str(tmp_path / "m.001"), {"h/W": np.ones((4, 5), "float32")})
    data = tmp_path / "m.001.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\1")
    with pytest.raises(ConfigError, match="tensor 'h/W': is damaged: its checksum does not match"):
        run(options(tmp_path, import_model_train_epoch1=str(tmp_path / "m.001")))


def subnet_net(filename, **changes) -> dict:
    """A net whose sub-network starts from a file."""
    inner = {"output": {"class": "linear", "activation": "tanh", "n_out": 5, "from": "data"}}
    return {
        "sub": {"class": "subnetwork", "from": "data", "subnetwork": inner, "load_on_init": filename, **changes},
        "output": {"class": "softmax", "loss": "ce", "from": "sub", "target": "classes"},
    }


def test_load_on_init(tmp_path):
    """The sub-network's values come from its file; a run that goes on takes them from its own model."""
    source = {"output/W": np.ones((4, 5), "float32"), "output/b": np.ones(5, "float32")}
    write_checkpoint(str(tmp_path / "lm.001"), source)
    net = subnet_net(str(tmp_path / "lm.001"))
    for epoch in (1, 2, 3):
        run(options(tmp_path, network=net, num_epochs=epoch, learning_rates=[0.0, 0.1, 0.0]))
    first, second, third = (read_model(str(tmp_path / f"model.00{i}"))["sub/output/W"] for i in (1, 2, 3))
    assert torch.equal(first, torch.ones(4, 5))
    assert not torch.equal(second, first) and torch.equal(third, second)


def test_load_on_init_with_options(tmp_path):
    write_checkpoint(str(tmp_path / "lm.001"), {"W": np.ones((4, 5), "float32")})
    net = subnet_net({"filename": str(tmp_path / "lm.001"), "params_prefix": "sub/output/", "ignore_missing": True})
    run(options(tmp_path, network=net, num_epochs=1, learning_rate=0.0))
    assert torch.equal(read_model(str(tmp_path / "model.001"))["sub/output/W"], torch.ones(4, 5))


@pytest.mark.parametrize("value, text", [
    (3, r'network\["sub"\]\["load_on_init"\]: `load_on_init` must be a model file'),
    ({"filename": "x", "ignore_mising": True}, 'unknown option "ignore_mising"; did you mean "ignore_missing"'),
    ({"filename": "x", "params_prefix": "lm/"}, "`params_prefix` must be a prefix of all names"),
    ("missing.001", "'missing.001' does not exist"),
])  # fmt: skip
def test_wrong_load_on_init(tmp_path, value, text):
    with pytest.raises(ConfigError, match=text):
        run(options(tmp_path, network=subnet_net(value)))


def test_what_is_not_critical_may_be_missing(tmp_path):
    run(options(tmp_path, num_epochs=1))
    for critical in (False, True):
        scale = {"class": "variable", "shape": (4,), "init": 1.0, "non_critical_for_restore": not critical}
        product = {"class": "combine", "kind": "mul", "from": ["data", "scale"]}
        net = {**network(), "scale": scale, "product": product}
        net["h"] = {**net["h"], "from": "product"}
        config = {**options(tmp_path, network=net), "task": "eval", "load_epoch": 1}
        if critical:
            with pytest.raises(ConfigError, match="scale/scale"):
                run(config)
        else:
            run(config)
