"""Models written with the frontend: trained, resumed, forwarded to a callback."""

import re

import numpy as np
import pytest
import torch

from returnn_lite.behavior_version import BehaviorVersion
from returnn_lite.errors import ConfigError
from tests.engine.helpers import dataset, run
from tests.engine.rf_models import Callback, options


@pytest.fixture(autouse=True)
def fresh_version():
    yield
    BehaviorVersion._reset()


def model(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]


def rates(folder):
    return re.sub(r"':meta:epoch_train_time_secs': \d+,\n", "", (folder / "rates").read_text())


def test_trains_resumes_and_forwards(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=6, learning_rate=0.05))
    run(options(parts, num_epochs=3, learning_rate=0.05))
    run(options(parts, num_epochs=6, learning_rate=0.05))
    first, second = model(whole, 6), model(parts, 6)
    names = {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "mean.mean"}
    assert first.keys() == names
    assert all(torch.equal(first[name], second[name]) for name in names) and rates(whole) == rates(parts)
    assert float(re.findall(r"'dev_loss_ce': (.*),", (whole / "rates").read_text())[-1]) < 1.0
    assert first["mean.mean"].abs().sum() > 0

    callback = Callback()
    run(options(whole, num_epochs=6, task="forward", eval=dataset(6, 2), forward_callback=callback))
    assert callback.found.pop("finished") and len(callback.found) == 6
    for found in callback.found.values():
        best = found["output"].argmax(-1)
        want = best[np.r_[True, best[1:] != best[:-1]]]
        assert found["labels"][0, : found["lengths"][0]].tolist() == want.tolist()
        assert found["labels"].shape == (2, found["lengths"].max())


def test_versions_below_that_of_torch_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be at least 16 here, but is 14"):
        run(options(tmp_path, num_epochs=1, behavior_version=14))
    run(options(tmp_path, num_epochs=1, behavior_version=21))
    assert BehaviorVersion.get() == 21


def test_an_output_that_is_not_declared(tmp_path):
    with pytest.raises(ConfigError, match="output 'output' is not declared in `model_outputs`"):
        run(options(tmp_path, num_epochs=1))
        changes = {"model_outputs": {"x": {"dim": 4, "shape": (None, 4)}}, "forward_callback": Callback()}
        run(options(tmp_path, num_epochs=1, task="forward", eval=dataset(3, 1), **changes))
