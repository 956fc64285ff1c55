"""Thinc's optimizers: formulas against numpy, its own calls, the registry form, .cfg files."""

import numpy as np
import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim import thinc
from returnn_lite.optim.resolve import default_options, make_optimizer
from tests.optim.small_net import Run

W = np.array([[1.0, -2.0], [0.5, 0.25]], "float32")
G = np.array([[0.1, 0.2], [-0.1, 0.05]], "float32")


def resolve(value, **config):
    made = Config({"optimizer": value, **config})
    return make_optimizer(default_options(made, Log.silent()), made, "optimizer")


def updated(optimizer, steps: int = 1, gradient=G, **options) -> np.ndarray:
    w = W.copy()
    for _ in range(steps):
        optimizer("w", w, gradient.copy(), **options)
        optimizer.step_schedules()
    return w


def test_sgd_and_clipping():
    assert np.allclose(updated(thinc.SGD(0.1)), W - 0.1 * G)
    assert np.allclose(updated(thinc.SGD(0.1), gradient=100 * G), W - 0.1 * G / np.linalg.norm(G))
    assert np.allclose(updated(thinc.SGD(0.1, grad_clip=0), gradient=100 * G), W - 10 * G, atol=1e-6)
    assert np.allclose(updated(thinc.SGD(0.1, grad_clip=0.1)), W - 0.01 * G / np.linalg.norm(G))


def test_l2_both_ways():
    decay = updated(thinc.SGD(0.1, L2=0.5))
    assert np.allclose(decay, (W - 0.1 * G) * (1 - 0.05))
    gradient = updated(thinc.SGD(0.1, L2=0.5, L2_is_weight_decay=False, grad_clip=0))
    assert np.allclose(gradient, W - 0.1 * (G + 0.5 * W))


def test_adam_and_radam():
    assert np.allclose(updated(thinc.Adam(0.1)), W - 0.1 * np.sign(G), atol=1e-4)
    assert np.allclose(updated(thinc.RAdam(0.1)), W - 0.1 * 0.1 * G / (1 - 0.9**2), atol=1e-6)
    assert np.allclose(updated(thinc.Optimizer(0.1, use_radam=True), 7), updated(thinc.RAdam(0.1), 7))
    assert np.allclose(updated(thinc.Adam(0.1, beta1=0.0, beta2=0.0)), W - 0.1 * G)


def test_lr_scale():
    assert np.allclose(updated(thinc.SGD(0.1), lr_scale=0.5), W - 0.05 * G)
    assert np.allclose(updated(thinc.RAdam(0.1), lr_scale=0.5), updated(thinc.RAdam(0.1)))


def test_calls():
    w, g = torch.from_numpy(W.copy()), torch.from_numpy(G.copy())
    optimizer = thinc.SGD(0.1, ops=None)
    weights, gradient = optimizer(w, g, 0.5, key=("layer", 1))
    assert weights is w and gradient is g and not g.any()
    assert np.allclose(w.numpy(), W - 0.05 * G)
    empty = np.zeros((0, 3), "float32")
    optimizer("empty", empty, empty.copy())
    assert list(optimizer.averages) == ["('layer', 1)"]
    optimizer.to_cpu()


def test_averages():
    optimizer = thinc.SGD(0.1)
    w = updated(optimizer)
    assert np.allclose(optimizer.averages["w"].numpy(), 9 / 11 * w)


def test_lookahead():
    optimizer = thinc.SGD(0.1, lookahead_k=2, lookahead_alpha=0.5)
    assert np.allclose(updated(optimizer, 2), W - 0.1 * G)
    assert np.allclose(optimizer.slow_weights["w"].numpy(), W - 0.1 * G)


def test_schedules():
    schedule = {"@schedules": "decaying.v1", "base_rate": 0.1, "decay": 1.0}
    assert np.allclose(updated(thinc.SGD(schedule), 2), W - (0.1 + 0.05) * G)
    older = thinc.SGD(0.3, schedules={"learn_rate": iter([0.1, 0.05])})
    assert older.learn_rate == 0.3
    rates = []
    for _ in range(3):
        older.step_schedules()
        rates.append(older.learn_rate)
    assert rates == [0.1, 0.05, 0.05]
    older.learn_rate = 0.7
    assert older.learn_rate == 0.7
    clip = thinc.SGD(0.1, schedules={"grad_clip": iter([0.5])})
    clip.step_schedules()
    assert clip.inner.values()["grad_clip"] == 0.5
    optimizer = thinc.SGD(0.1)
    optimizer.last_score = 3.0
    assert optimizer.last_score == (0, 3.0)


@pytest.mark.parametrize("make, message", [
    (lambda: thinc.SGD(0.1, beta1=0.9), "SGD has no such option"),
    (lambda: thinc.Adam(0.1, beta1=0.0), "beta1 must not be 0 if beta2 is not"),
    (lambda: thinc.Adam("x"), "Invalid schedule for 'learn_rate'"),
    (lambda: thinc.SGD(0.1, schedules={"L3": iter([1])}), "must be one of learn_rate"),
    (lambda: thinc.SGD(0.1, use_averages="yes"), "must be True or False"),
])  # fmt: skip
def test_errors_of_calls(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def test_betas_that_become_wrong():
    optimizer = thinc.Adam(0.1, beta1=[0.9, 0.0])
    with pytest.raises(ValueError, match="beta1 must not be 0"):
        updated(optimizer, 2)


def test_weight_decay_is_l2():
    made = resolve({"class": "thinc.RAdam", "weight_decay": 0.1, "L2_is_weight_decay": "true", "epsilon": 1e-3})
    assert made.values()["L2"] == 0.1 and made.l2_is_decay and made.values()["eps"] == 1e-3


@pytest.mark.parametrize("value, config, path, message", [
    ({"@optimizer": "SGD.v1"}, {}, 'optimizer["@optimizer"]', 'did you mean "@optimizers"?'),
    ({"@optimizers": "SDG.v1"}, {}, 'optimizer["@optimizers"]', 'did you mean "SGD.v1"?'),
    ({"@optimizers": "SGD.v1", "@schedules": "x"}, {}, 'optimizer["@optimizers"]', "only key with @"),
    ({"class": "thinc.SGD", "grad_clp": 1}, {}, 'optimizer["grad_clp"]', 'did you mean "grad_clip"?'),
    ({"class": "thinc.SGD", "learn_rate": 0.1}, {"learning_rate": 0.1}, 'optimizer["learn_rate"]',
     "so does `learning_rate`"),
    ({"class": "thinc.SGD", "L2": {"@schedules": "x"}}, {}, 'optimizer["L2"]["@schedules"]', "unknown schedule"),
    ("none.cfg", {}, "optimizer", "file 'none.cfg' does not exist"),
])  # fmt: skip
def test_errors_of_configs(value, config: dict, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        resolve(value, **config)
    assert caught.value.path == path and message in caught.value.message


@pytest.mark.parametrize("other", [
    {"learning_rate_control": "newbob"}, {"learning_rates": [0.1]},
    {"lr_scheduler": {"class": "ExponentialLR", "gamma": 0.5}},
])  # fmt: skip
def test_two_owners_of_the_learning_rate(other: dict):
    with pytest.raises(ConfigError, match="sets the learning rate, but so does"):
        Run(optimizer={"@optimizers": "SGD.v1", "learn_rate": 0.1}, **other)


CFG = """
[rates]
start = 0.2

[optimizer]
@optimizers = "SGD.v1"
L2 = 0.01

[optimizer.learn_rate]
@schedules = decaying.v1
base_rate = ${rates.start}
decay = 1.0

[training]

[training.optimizer]
@optimizers = "Adam.v1"
use_averages = False
"""


def test_cfg_files(tmp_path):
    (tmp_path / "optim.cfg").write_text(CFG)
    config = {"__file__": str(tmp_path / "train.config")}  # beside which the file is looked for
    made = resolve("optim.cfg", **config)
    assert made.name == "thinc.SGD" and made.own_rate() == 0.2 and made.values()["L2"] == 0.01
    other = resolve("optim.cfg:training.optimizer", **config)
    assert other.name == "thinc.Adam" and not other.use_averages
    with pytest.raises(ConfigError, match=r"must have a section \[optimizr\], .* did you mean \"optimizer\"\?"):
        resolve("optim.cfg:optimizr", **config)


def test_own_learning_rate():
    run = Run(optimizer={"@optimizers": "SGD.v1", "learn_rate": [0.1, 0.2, 0.3]}).epochs(2)
    assert run.rates == [0.1, 0.2, 0.3, 0.3] and run.updater.rates.owned
