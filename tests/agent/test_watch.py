"""What is seen of an epoch, on a training of one parameter that can be done by hand; and range tests."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from returnn_lite.network.network import NetworkOutput
from returnn_lite.network.objective import LossValue
from returnn_lite.trials.range_test import rising, smoothed, usual_rates
from returnn_lite.trials.watch import FACTS, EpochWatch, ParameterPath, layer_sizes, layers_of


class Updater:
    """Has the parameters."""

    def __init__(self, params):
        self.active = params


def step_result(loss: float, frames: float):
    loss_value = LossValue(torch.tensor(loss), None, torch.tensor(frames), 1.0, False)
    out = NetworkOutput({}, {}, {"output": loss_value})
    columns = (("cost", "output"), ("inv_norm", "output"), ("loss", ""))
    return type("Result", (), {"out": out, "columns": columns, "scores": torch.tensor([loss, frames, loss])})()


def watched(losses: list[float], grads: list[list[float]], rate: float, **options) -> dict:
    params = {"a/W": torch.nn.Parameter(torch.tensor([3.0, 4.0])), "b/W": torch.nn.Parameter(torch.tensor([0.0]))}
    net = type("Net", (), {"params": params})()
    updater, watch = Updater(params), EpochWatch(["dev_score"], paths=True, **options)
    watch.epoch_start(net, updater)
    for loss, grad in zip(losses, grads, strict=True):
        watch.step(step_result(loss, 2.0))
        found = {"a/W": torch.tensor(grad[:2]).float(), "b/W": torch.tensor(grad[2:]).float()}
        watch.gradients(found)
        with torch.no_grad():
            for name, value in found.items():
                params[name] -= rate * value
    return watch.epoch_end()[FACTS]


def test_facts_of_an_epoch():
    facts = watched([8.0, 6.0, 4.0, 2.0], [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 2]], 0.1)
    assert_allclose(facts["grad_norms"], [0.5, 1.0])  # of the last update, per frame
    assert facts["train_loss"] == 2.5
    assert facts["train_noise"] == pytest.approx(0.5 / 1.5)  # 2.0 and 1.0
    assert facts["train_trend"] == pytest.approx(math.log(4))
    assert facts["alignment"] == pytest.approx((1 + 0 - 1 / math.sqrt(5)) / 3)
    way = 0.1 * (3 + math.sqrt(5))
    assert facts["straightness"] == pytest.approx(math.hypot(0.2, 0.2) / way)
    assert facts["displacement"] == pytest.approx(math.hypot(0.2, 0.2) / 5, rel=1e-5)


def test_mean_norms():
    facts = watched([1.0, 1.0], [[2, 0, 0], [0, 0, 4]], 0.1, mean_norms=True)
    assert_allclose(facts["grad_norms"], [0.5, 1.0])


def test_a_parameter_that_stands_still():
    still = ParameterPath({"W": torch.nn.Parameter(torch.zeros(2))})
    for _ in range(2):
        still.step({"W": torch.zeros(2)})
    assert still.end() == {"alignment": 0.0, "straightness": 0.0, "displacement": 0.0}


def test_layers():
    params = {name: torch.nn.Parameter(torch.zeros(size)) for name, size in
              {"a/W": 6, "a/b": 2, "rec/s/W": 3, "rec/W": 5}.items()}  # fmt: skip
    params["a/mean"] = torch.nn.Parameter(torch.zeros(9), requires_grad=False)
    assert layers_of(params) == {"a": ["a/W", "a/b"], "rec/s": ["rec/s/W"], "rec": ["rec/W"]}
    assert layer_sizes(params) == {"a": 8, "rec/s": 3, "rec": 5}


def test_rising_rates():
    rate = rising(0.01, 100.0, 5)
    assert_allclose([rate(global_train_step=step, learning_rate=7) for step in range(5)], [0.01, 0.1, 1, 10, 100])


def test_smoothed_losses():
    losses = [2.0] * 20 + [1.0] * 20 + [math.nan]
    curve = smoothed(losses, 50)
    assert len(curve) == 50
    assert_allclose(curve[:15], 2.0)
    assert curve[20] == pytest.approx((5 * 2 + 6) / 11)
    assert int(np.argmin(curve)) == 25
    assert curve[36] > 1e20


@pytest.mark.parametrize("names, expected", [
    (["gradientdescent"], (1e-3, 10.0)), (["torch.SGD"], (1e-3, 10.0)), (["adam"], (1e-5, 1.0)),
    (["gradientdescent", "adam"], (1e-5, 1.0)),
])  # fmt: skip
def test_where_range_tests_look(names, expected):
    assert usual_rates([type("O", (), {"name": name})() for name in names]) == expected
