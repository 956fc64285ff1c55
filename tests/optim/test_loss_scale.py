"""`grad_scaler`: the objective is scaled, the update is not; overflows are left out and shrink the scale."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.optim.loss_scale import LossScale, scaler_options
from tests.optim.test_updater import INPUTS, Run, objective

CPU = torch.device("cpu")
ADAM = {"optimizer": {"class": "adam"}}


def train(run, factors, options=None, first=0):
    """One step per factor, by which the objective is multiplied."""
    if options is not None:
        run.updater.scale_by(LossScale(options, CPU))
    for step, factor in enumerate(factors, start=first):
        value = objective(run.params, INPUTS[step]) * factor
        run.updater.step(value, global_step=step, learning_rate=0.1, epoch_step=step)
    return run


def test_scaled_updates_are_the_plain_ones():
    scaled = train(Run(ADAM), [1.0, 2.0, 0.5], {"init_scale": 1024.0})
    assert scaled.equals(train(Run(ADAM), [1.0, 2.0, 0.5]))


def test_clipping_sees_unscaled_gradients():
    config = {**ADAM, "gradient_clip_global_norm": 0.1, "accum_grad_multiple_step": 2}
    assert train(Run(config), [1.0] * 4, {"init_scale": 2.0**16}).equals(train(Run(config), [1.0] * 4))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_overflows_are_left_out(bad):
    run = train(Run(ADAM), [1.0, bad, 0.0], {"init_scale": 8.0, "growth_interval": 100})
    other = train(Run(ADAM), [1.0])
    assert run.equals(train(other, [0.0], first=2))
    assert run.updater.loss_scale.state_dict()["scale"] == 4.0


def test_the_scale_grows_and_goes_on_after_a_restart():
    options = {"init_scale": 8.0, "growth_interval": 2}
    state = train(Run(ADAM), [1.0] * 3, options).updater.state_dict()
    assert state["loss_scale"]["scale"] == 16.0 and state["loss_scale"]["_growth_tracker"] == 1
    resumed = train(Run(ADAM), [], options)
    resumed.updater.load_state_dict(state)
    assert train(resumed, [1.0], first=3).updater.loss_scale.state_dict()["scale"] == 32.0


def test_small_gradients_survive_float16():
    """3e-8 is below half of the smallest float16; scaled by 2^16 it is not."""
    x = torch.ones(3, requires_grad=True)
    scale = LossScale({}, CPU)

    def slope(factor):
        return torch.autograd.grad(factor((x.half() * 1.0).sum().float() * 2.0**-26), [x])[0]

    assert float(slope(lambda loss: loss).abs().max()) == 0.0
    found = scale.unscaled({"x": slope(scale.scale)})["x"]
    assert found.tolist() == [2.0**-26] * 3


def test_refused():
    with pytest.raises(ConfigError, match="grad_scaler: cannot be used together with torch.LBFGS"):
        train(Run({"optimizer": {"class": "torch.LBFGS"}}), [], {})
    with pytest.raises(ConfigError, match="cannot be used together with maximize_grad_norm"):
        train(Run({**ADAM, "maximize_grad_norm": 0.1}), [], {})
    assert scaler_options({"enabled": False, "init_scale": 2}) is None and scaler_options(None) is None
    with pytest.raises(ConfigError, match=r'grad_scaler\["scale"\]: unknown option'):
        scaler_options({"scale": 2})
