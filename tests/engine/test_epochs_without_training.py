"""Epochs that only go through the training data, and nets that have nothing to train by."""

import re

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.engine import torch_models
from tests.engine.helpers import network, options, run


def by_epoch(**marks):
    """get_network: epoch 2 has these marks."""

    def get_network(*, epoch, **_):
        return {**network(), **(marks if epoch == 2 else {})}

    return get_network


def model(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]


def same(folder, a, b):
    one, other = model(folder, a), model(folder, b)
    return all(torch.equal(one[name], other[name]) for name in one if name != "global_step")


def records(folder):
    environment = {"EpochData": lambda learningRate, error: error, "nan": np.nan, "np": np}  # noqa: N803
    return eval((folder / "rates").read_text(), environment)


def test_an_epoch_without_training(tmp_path):
    """Its scores are those of evaluating the training data with the parameters of epoch 1."""
    net = by_epoch(**{"#trainable": False, "#finish_all_data": True})
    made = options(tmp_path, network=None, get_network=net)
    lines = run({**made, "eval_datasets": {"again": {**made["train"], "seq_ordering": "default"}}})
    found = records(tmp_path)
    assert sorted(found) == [1, 2, 3] and same(tmp_path, 1, 2) and not same(tmp_path, 2, 3)
    assert found[1]["dev_score"] == found[2]["dev_score"] != found[3]["dev_score"]
    assert found[2]["train_score"] == pytest.approx(found[1]["again_score"], rel=1e-5)
    assert found[2]["train_score"] != pytest.approx(found[1]["train_score"], rel=1e-5)
    assert any(line.startswith("train epoch 2, step 0") for line in lines)
    assert not any("reinit" in line for line in lines)
    steps = found[1][":meta:epoch_num_train_steps"]
    assert model(tmp_path, 2)["global_step"] == steps and model(tmp_path, 3)["global_step"] > steps


def test_the_optimizer_goes_on_behind_it(tmp_path):
    """Epochs 1 and 3 have the numbers of epochs 1 and 2 without the one between, data and dropout aside."""
    net = by_epoch(**{"#trainable": False})
    plain = {"seq_ordering": "default"}
    made = options(tmp_path / "with", network=None, get_network=net, num_epochs=3, learning_rate_control=None)
    other = options(tmp_path / "without", num_epochs=2, learning_rate_control=None, network=network(dropout=0))
    made["train"], other["train"] = {**made["train"], **plain}, {**other["train"], **plain}
    made["get_network"] = lambda *, epoch, **_: {**network(dropout=0), **({"#trainable": False} if epoch == 2 else {})}
    run(made), run(other)
    one, wanted = model(tmp_path / "with", 3), model(tmp_path / "without", 2)
    assert all(torch.allclose(one[name], wanted[name], atol=1e-6) for name in one)


def test_a_resumed_run_goes_on_behind_it(tmp_path):
    net = by_epoch(**{"#trainable": False})
    for folder, epochs in (("whole", (3,)), ("parts", (2, 3))):
        for last in epochs:
            run(options(tmp_path / folder, network=None, get_network=net, num_epochs=last))
    one, other = model(tmp_path / "whole", 3), model(tmp_path / "parts", 3)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_network_that_never_trains(tmp_path):
    with pytest.raises(ConfigError, match=r'network\["#trainable"\]: must not be False'):
        run(options(tmp_path, network={**network(), "#trainable": False}))


def without_loss(**changes):
    net = network()
    net["output"] = {"class": "softmax", "from": "h", "n_out": 4}
    return {**net, **changes}


def test_a_net_without_a_loss(tmp_path):
    with pytest.raises(ConfigError, match=r'network: must have a layer with a "loss" to train by'):
        run(options(tmp_path, network=without_loss()))
    assert not (tmp_path / "rates").exists()


def test_an_epoch_without_loss_and_training(tmp_path):
    def get_network(*, epoch, **_):
        return without_loss(**{"#trainable": False}) if epoch == 2 else network()

    lines = run(options(tmp_path, network=None, get_network=get_network))
    assert lines[-1] == "Finished training in epoch 3." and "train_score" not in records(tmp_path)[2]


def test_losses_that_train_nothing_are_told(tmp_path):
    net = network()
    net["output"]["loss_scale"] = 0
    lines = run(options(tmp_path, network=net, num_epochs=1))
    assert sum("do not depend on any trainable parameter: nothing is trained" in line for line in lines) == 1


def test_a_step_that_marks_no_loss(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("train_step: must mark a loss to train by")):
        run(torch_models.options(tmp_path, train_step=lambda *, model, extern_data, **_: None))
