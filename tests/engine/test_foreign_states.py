"""Going on from optimizer states as RETURNN's torch backend writes them: torch's state dict, and names beside it."""

import pytest
import torch

from returnn_lite.engine.checkpoints.foreign_state import translated
from returnn_lite.errors import ConfigError
from tests.engine.helpers import run
from tests.engine.test_torch_updates import found, options, stepper

ADAM = {"optimizer": {"class": "adamw", "weight_decay": 0.1}}


def as_the_other_writes(folder, epoch):
    """Rewrites the state of an epoch in that form, the parameters in another order and in two groups."""
    path = folder / f"model.{epoch:03d}.opt.pt"
    own = torch.load(path, weights_only=True)
    (saved,) = own["optimizer"]["optimizers"].values()
    names = sorted(saved["slots"], reverse=True)
    groups = [{"lr": 0.1, "weight_decay": 0.1, "params": [i]} for i in range(len(names))]
    state = {"state": {i: saved["slots"][name] for i, name in enumerate(names)}, "param_groups": groups}
    other = {
        "optimizer": state, "optimizer_class_name": "AdamW", "optimizer_opts": {"class": "adamw"}, "param_names": names,
        "epoch": own["epoch"], "step": own["step"], "effective_learning_rate": 0.1, "returnn_version": "1.2026",
    }  # fmt: skip
    torch.save(other, path)
    return other


def test_going_on_gives_the_same_parameters(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, epochs in ((whole, 3), (parts, 2)):
        folder.mkdir()
        run(options(folder, stepper(), num_epochs=epochs, learning_rate_file=str(folder / "rates"), **ADAM))
    as_the_other_writes(parts, 2)
    run(options(parts, stepper(), learning_rate_file=str(parts / "rates"), **ADAM))
    assert found(parts) == found(whole)


def test_names_that_do_not_fit(tmp_path):
    run(options(tmp_path, stepper(), num_epochs=1, **ADAM))
    other = as_the_other_writes(tmp_path, 1)
    with pytest.raises(ValueError, match="2 parameters, but 1 names"):
        translated({**other, "param_names": ["w"]})
    torch.save({**other, "param_names": ["w"]}, tmp_path / "model.001.opt.pt")
    with pytest.raises(ConfigError, match="model.001.opt.pt.* does not fit the optimizer .*2 parameters, but 1 names"):
        run(options(tmp_path, stepper(), **ADAM))


def test_parameters_without_a_state(tmp_path):
    state = {"state": {}, "param_groups": [{"params": [0, 1]}]}
    made = translated(
        {"optimizer": state, "param_names": ["w", "part.weight"], "optimizer_class_name": "SGD", "step": 3}
    )
    (optimizer,) = made["optimizer"]["optimizers"].values()
    assert optimizer["class"] == "torch.SGD" and optimizer["slots"] == {} and made["step"] == 3


def test_options_of_the_groups():
    groups = [
        {"params": [1], "lr": 0.1, "weight_decay": 0.2, "betas": (0.5, 0.9)},
        {"params": [0], "weight_decay": 0.0},
    ]
    state = {"state": {}, "param_groups": groups}
    made = translated({"optimizer": state, "param_names": ["w", "b"], "optimizer_class_name": "AdamW"})
    found = [(group["params"], group["options"]) for group in made["optimizer"]["optimizers"].values()]
    assert found == [(["w"], {"weight_decay": 0.2, "beta1": 0.5, "beta2": 0.9}), (["b"], {"weight_decay": 0.0})]
