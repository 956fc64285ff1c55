"""Parameters that are NaN or infinite: never in a checkpoint, and named where a file has them."""

import math

import pytest
import torch

from returnn_lite.engine.checkpoints.finite import all_finite, nonfinite
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import get_run_ctx
from tests.engine import helpers
from tests.engine.small_models import options, state

CLEANUP = {"keep_last_n": 1, "keep_best_n": 1, "keep": []}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_is_enough(dtype, value):
    good = {"a": torch.full((3, 4), 6e4, dtype=dtype), "none": torch.zeros(0), "n": torch.ones(2, dtype=torch.int64)}
    good["huge"] = torch.full((9,), 3e38)
    assert all_finite(good.values()) and nonfinite(good) == []
    bad = good["a"].clone()
    bad[1, 2] = value
    assert nonfinite({**good, "b": bad, "c": bad.real}) == ["b", "c"]
    assert nonfinite({**good, "b": bad}, {"b"}) == []


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Parameter(torch.ones(2))
        self.w = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))  # where it is no fault
        self.register_buffer("mean", torch.zeros(2))


def broken_in(step, what):
    """The loss w^2; in training step `step` its gradient is infinite, or a buffer becomes NaN."""
    count = [0]

    def train_step(*, model, extern_data, **_):
        x = extern_data["data"].raw_tensor.mean()
        loss = (model.w * x) ** 2
        if model.training:
            count[0] += 1
            if count[0] == step and what == "gradient":
                loss = loss + torch.sqrt((model.w - model.w.detach()) * x)
            if count[0] == step and what == "buffer":
                model.mean += math.nan
        get_run_ctx().mark_as_loss(loss, "l", use_normalized_loss=True)

    return train_step


@pytest.mark.parametrize("what, name", [("gradient", "w"), ("buffer", "mean")])
@pytest.mark.parametrize("dev", [True, False])
def test_the_last_step_of_an_epoch(tmp_path, what, name, dev):
    changes = {"optimizer": {"class": "adam"}, "cleanup_old_models": CLEANUP, **({} if dev else {"dev": None})}
    with pytest.raises(ConfigError, match=f"parameter '{name}' is not finite .* so epoch 2 is discarded"):
        helpers.run(options(tmp_path, Net, broken_in(8, what), **changes))
    assert sorted(path.name for path in tmp_path.glob("model*")) == ["model.001.opt.pt", "model.001.pt"]
    assert "2:" not in (tmp_path / "rates").read_text()
    helpers.run(options(tmp_path, Net, broken_in(0, ""), **changes))
    whole = tmp_path / "whole"
    helpers.run(options(whole, Net, broken_in(0, ""), **changes))
    assert torch.equal(state(tmp_path, 3)["w"], state(whole, 3)["w"])
    assert torch.equal(state(tmp_path, 3)["mask"], torch.tensor([0.0, -math.inf]))


def test_on_request_the_training_goes_on_and_keeps_the_last_good_epoch(tmp_path):
    changes = {"stop_on_nonfinite_train_score": False, "cleanup_old_models": CLEANUP, "optimizer": {"class": "adam"}}
    lines = helpers.run(options(tmp_path, Net, broken_in(8, "gradient"), **changes))
    assert any(line.startswith("WARNING: epoch 2: parameter 'w' is not finite") for line in lines)
    assert math.isfinite(state(tmp_path, 1)["w"]) and math.isnan(state(tmp_path, 3)["w"])


@pytest.mark.parametrize("task", ["train", "eval"])
def test_a_file_with_nan_is_named(tmp_path, task):
    helpers.run(options(tmp_path, Net, broken_in(0, ""), num_epochs=2))
    path = tmp_path / "model.002.pt"
    content = torch.load(path, weights_only=True)
    content["model"]["first"][1] = math.nan
    torch.save(content, path)
    with pytest.raises(ConfigError) as error:
        helpers.run(options(tmp_path, Net, broken_in(0, ""), task=task, load_epoch=2 if task == "eval" else None))
    assert "model.002': parameter 'first' is not finite (1 of 2 numbers" in str(error.value)
    if task == "train":
        helpers.run(options(tmp_path, Net, broken_in(0, ""), start_epoch=2))
        assert state(tmp_path, 3)["first"].isfinite().all()


def test_layer_nets_too(tmp_path):
    helpers.run(helpers.options(tmp_path, num_epochs=1))
    path = tmp_path / "model.001.pt"
    content = torch.load(path, weights_only=True)
    content["model"]["h/W"][0, 0] = math.inf
    torch.save(content, path)
    for changes in ({"num_epochs": 2}, {"task": "forward", "output_file": str(tmp_path / "out.hdf")}):
        with pytest.raises(ConfigError, match="model.001': parameter 'h/W' is not finite"):
            helpers.run(helpers.options(tmp_path, eval=helpers.dataset(2, 3), **changes))
