"""Eval strings in a run: the names they may use, random numbers that a resumed run draws again."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.engine.helpers import network, options, run

NOISE = "source(0) + self.network.cond_on_train(lambda: tf.random.normal(tf.shape(source(0))), lambda: 0.0)"


def with_eval(text):
    net = network()
    return {**net, "e": {"class": "eval", "from": "h", "eval": text}, "output": {**net["output"], "from": "e"}}


def model(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]


def test_tf_and_helpers(tmp_path):
    lines = run(
        options(tmp_path, num_epochs=1, network=with_eval("tf.clip_by_value(safe_log(tf.exp(source(0))), -1.0, 1.0)"))
    )
    assert lines[-1] == "Finished training in epoch 1."


def test_unknown_name(tmp_path):
    with pytest.raises(ConfigError, match=r'network\["e"\].*clip_by_valu'):
        run(options(tmp_path, num_epochs=1, network=with_eval("tf.clip_by_valu(source(0), -1.0, 1.0)")))


def test_random_numbers_are_those_of_the_epoch(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=3, network=with_eval(NOISE)))
    for epochs in (1, 3):
        run(options(parts, num_epochs=epochs, network=with_eval(NOISE)))
    first, second = model(whole, 3), model(parts, 3)
    assert all(torch.equal(first[name], second[name]) for name in first)
