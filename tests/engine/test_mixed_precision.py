"""`torch_amp` and `grad_scaler` in whole runs, of layer nets and of models written in torch."""

import math
import re

import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.engine.precision import Precision
from tests.engine import small_models, torch_models
from tests.engine.helpers import options, run


def dev_scores(folder):
    return [float(value) for value in re.findall(r"'dev_(?:score|loss_ce)': ([\d.]+)", (folder / "rates").read_text())]


@pytest.mark.parametrize(("value", "dtype", "scaler"), [
    (None, None, None),
    ("bfloat16", torch.bfloat16, None),
    ("float16", torch.float16, {}),
    (torch.bfloat16, torch.bfloat16, None),
    ({"dtype": "float16", "grad_scaler": None}, torch.float16, None),
    ({"dtype": "bfloat16", "grad_scaler": {"init_scale": 2.0}}, torch.bfloat16, {"init_scale": 2.0}),
    ({}, torch.bfloat16, None),
])  # fmt: skip
def test_forms(value, dtype, scaler):
    assert Precision.from_config(Config({"torch_amp": value})) == Precision(dtype, scaler)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_layer_nets_learn_as_in_float32(tmp_path, kind):
    plain, low = tmp_path / "plain", tmp_path / "low"
    run(options(plain))
    run(options(low, torch_amp=kind, grad_scaler={"init_scale": 256.0}))
    assert dev_scores(low) == pytest.approx(dev_scores(plain), rel=0.02)
    before, after = (torch.load(folder / "model.003.pt")["model"] for folder in (plain, low))
    assert all(x.dtype == before[name].dtype for name, x in after.items())
    assert not torch.equal(before["h/W"], after["h/W"])


def test_models_written_in_torch_are_scaled(tmp_path):
    plain, low = tmp_path / "plain", tmp_path / "low"
    run(torch_models.options(plain, num_epochs=3))
    run(torch_models.options(low, num_epochs=3, torch_amp="float16", grad_scaler={"init_scale": 256.0}))
    assert dev_scores(low) == pytest.approx(dev_scores(plain), rel=0.05)
    state = torch.load(low / "model.003.opt.pt")["optimizer"]
    assert state["loss_scale"]["scale"] == 256.0 and state["loss_scale"]["_growth_tracker"] > 0


def test_the_first_scale_is_found(tmp_path):
    """2^16 times a loss that is a sum overflows: some updates are left out until the scale fits."""
    run(options(tmp_path, torch_amp="float16"))
    assert 1.0 < torch.load(tmp_path / "model.003.opt.pt")["optimizer"]["loss_scale"]["scale"] < 2.0**16
    assert dev_scores(tmp_path)[-1] < dev_scores(tmp_path)[0]


def test_an_overflow_leaves_one_update_out(tmp_path):
    """Of four updates the second has an infinite gradient, at a finite loss."""

    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

    def train_step(*, model, extern_data, step, **_):
        y = model.w + (0 if step != 1 else (model.w - model.w.detach()).abs().sqrt())
        small_models.get_run_ctx().mark_as_loss(y, "l", use_normalized_loss=True)

    changes = {"num_epochs": 1, "torch_amp": "float16", "grad_scaler": {"init_scale": 4.0}}
    run(small_models.options(tmp_path, lambda **_: One(), train_step, **changes))
    assert small_models.state(tmp_path, 1)["w"].tolist() == pytest.approx([-0.3])
    assert torch.load(tmp_path / "model.001.opt.pt")["optimizer"]["loss_scale"]["scale"] == 2.0


def test_scaled_trainings_resume(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"torch_amp": "float16", "grad_scaler": {"growth_interval": 3}}
    run(options(whole, num_epochs=4, **changes))
    run(options(parts, num_epochs=2, **changes))
    run(options(parts, num_epochs=4, **changes))
    first, second = (torch.load(folder / "model.004.pt")["model"] for folder in (whole, parts))
    assert all(torch.equal(x, second[name]) for name, x in first.items())
    assert all(math.isfinite(score) for score in dev_scores(parts))
