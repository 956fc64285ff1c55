"""`num_allowed_consec_invalid_gradient_steps`: steps with gradients that are not finite are left out."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.optim.test_updater import INPUTS, Run, objective

OPTION = "num_allowed_consec_invalid_gradient_steps"
ADAM = {"optimizer": {"class": "adam"}}


def train(run, factors, first=0):
    """One step per factor; the objective is multiplied by it."""
    for step, factor in enumerate(factors, start=first):
        value = objective(run.params, INPUTS[step]) * factor
        run.updater.step(value, global_step=step, learning_rate=0.1, epoch_step=step)
    return run


def test_bad_steps_leave_no_trace():
    with_bad = train(Run({**ADAM, OPTION: 2}), [1.0, math.nan, math.inf, 0.0])
    steps = Run(ADAM)
    train(steps, [1.0])
    train(steps, [0.0], first=3)
    assert with_bad.equals(steps)
    assert all(bool(torch.isfinite(param).all()) for param in with_bad.params.values())


def test_too_many_in_a_row():
    run = train(Run({**ADAM, OPTION: 2}), [math.nan, 1.0, math.nan, math.nan])
    with pytest.raises(ConfigError, match="not finite in 3 steps in a row, but 2 are allowed"):
        train(run, [math.nan], first=4)


def test_the_count_goes_on_after_a_restart():
    state = train(Run({**ADAM, OPTION: 1}), [math.nan]).updater.state_dict()
    resumed = Run({**ADAM, OPTION: 1})
    resumed.updater.load_state_dict(state)
    with pytest.raises(ConfigError, match=OPTION):
        train(resumed, [math.nan], first=1)


def test_accumulation_leaves_the_bad_batch_out():
    config = {"accum_grad_multiple_step": 2, OPTION: 1}
    run = train(Run(config), [1.0, 1.0, math.nan, 1.0])
    other = train(Run(config), [1.0, 1.0, 0.0, 1.0])
    assert run.close_to(other)


def test_not_with_a_closure():
    with pytest.raises(ConfigError, match=f"{OPTION}: must not be set with"):
        Run({"optimizer": {"class": "torch.LBFGS"}, OPTION: 1})
