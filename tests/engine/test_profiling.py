"""`torch_profile`, `torch_log_memory_usage`, batches that do not fit, and what a resumed optimizer says."""

import json

import numpy as np
import pytest
import torch

from returnn_lite.config import Config
from returnn_lite.datasets import Batch
from returnn_lite.engine.batch_errors import OutOfMemory
from returnn_lite.engine.batch_split import halves, parts_that_fit
from returnn_lite.engine.profiling import memory_line, memory_usage, size_text
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim.dynamic import Clock, piecewise
from tests.engine import helpers, torch_models
from tests.engine.helpers import Lines, run

SHORT = {"skip_first": 1, "wait": 0, "warmup": 1, "active": 2}


@pytest.mark.parametrize("models", [helpers, torch_models], ids=["layers", "torch"])
def test_a_profile(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    lines = run(models.options(tmp_path, torch_profile={"schedule": SHORT}, max_seqs=2))
    events = json.loads((tmp_path / "torch_profile.json").read_text())["traceEvents"]
    assert {event.get("name") for event in events} & {"aten::addmm", "aten::mm", "aten::linear"}
    assert any("aten::" in line and "%" in line for line in lines)
    assert sum(", step " in line for line in lines) == 4
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(("value", "words"), [
    (3, "torch_profile: must be True or a dict"),
    ({"with_stak": True}, r'torch_profile\["with_stak"\]: unknown option; did you mean "with_stack"'),
    ({"schedule": {"skip": 1}}, r'torch_profile\["schedule"\]\["skip"\]: unknown option'),
    ({"schedule": {"active": 0}}, "torch_profile: "),
])  # fmt: skip
def test_wrong_profiles(tmp_path, value, words):
    with pytest.raises(ConfigError, match=words):
        run(helpers.options(tmp_path, torch_profile=value))


def test_memory_of_the_cpu_is_not_told(tmp_path):
    cpu = torch.device("cpu")
    assert memory_usage(cpu) == memory_line(cpu) == ""
    assert [size_text(n) for n in (10, 12288, 5 * 2**30, 2**42)] == ["10.0B", "12.0KB", "5.0GB", "4096.0GB"]
    lines = run(helpers.options(tmp_path, num_epochs=1, torch_log_memory_usage=True))
    assert not any("mem_usage" in line for line in lines)


def batch_of(lengths):
    data = np.zeros((len(lengths), max(lengths), 2), "float32")
    for i, n in enumerate(lengths):
        data[i, :n] = i + 1
    tags = [f"seq-{i}" for i in range(len(lengths))]
    return Batch({"data": data, "text": tags}, {"data": np.array(lengths, "int32")}, tags, np.arange(len(lengths)), 0.5)


def test_halves_lose_padding():
    first, second = halves(batch_of([3, 5, 2, 1, 1]))
    assert first.tags == ["seq-0", "seq-1", "seq-2"] and second.data["text"] == ["seq-3", "seq-4"]
    assert first.data["data"].shape == (3, 5, 2) and second.data["data"].shape == (2, 1, 2)
    assert second.lengths["data"].tolist() == [1, 1] and second.data["data"].ravel().tolist() == [4, 4, 5, 5]


def fits(limit):
    def run_part(part):
        if part.data["data"][..., 0].size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part.tags

    return run_part


def test_batches_are_cut_until_they_fit():
    target = Lines()
    options = {"splits": True, "config": Config({}), "log": Log([target])}
    parts = list(parts_that_fit(batch_of([4, 4, 4, 4, 2]), fits(8), **options))
    assert [tags for _, tags in parts] == [["seq-0", "seq-1"], ["seq-2"], ["seq-3", "seq-4"]]
    assert len(target.lines) == 2
    with pytest.raises(OutOfMemory, match="out of GPU memory in a batch"):
        list(parts_that_fit(batch_of([9, 3]), fits(8), **options))
    with pytest.raises(OutOfMemory):
        list(parts_that_fit(batch_of([4, 4, 4]), fits(8), **{**options, "splits": False}))


@pytest.mark.parametrize("models", [helpers.options, torch_models.options], ids=["layers", "torch"])
def test_changed_options_are_told_on_resume(tmp_path, models):
    first = {"class": "torch.AdamW", "betas": (0.9, 0.99), "weight_decay": 0.0}
    run(models(tmp_path, num_epochs=1, optimizer=first))
    assert not any("the config says" in line for line in run(models(tmp_path, num_epochs=2, optimizer=first)))
    lines = run(models(tmp_path, num_epochs=3, optimizer={**first, "betas": (0.8, 0.99)}))
    text = "note: optimizer torch.AdamW: beta1 is 0.8 as the config says, not 0.9 as in the saved state"
    assert [line for line in lines if "the config says" in line] == [text]


def test_piecewise_rates():
    config = {"learning_rate_piecewise_steps": [0, 10, 20], "learning_rate_piecewise_values": [0.0, 1.0, 0.5]}
    rate = piecewise(Config(config), Clock())
    assert [rate(step, 2.0) for step in (0, 5, 10, 15, 99)] == [0.0, 1.0, 2.0, 1.5, 1.0]
    clock = Clock(11, 0.0)
    by_epoch = piecewise(Config({**config, "learning_rate_piecewise_by_epoch_continuous": True}), clock)
    assert by_epoch(0, 2.0) == 2.0
    clock.complete = 0.5
    assert by_epoch(0, 2.0) == pytest.approx(1.95)
    assert piecewise(Config({}), clock) is None
    with pytest.raises(ConfigError, match="must be as many as `learning_rate_piecewise_values`"):
        piecewise(Config({**config, "learning_rate_piecewise_steps": [0, 10]}), clock)
    with pytest.raises(ConfigError, match="learning_rate_piecewise_values: must be a list of numbers"):
        piecewise(Config({"learning_rate_piecewise_steps": [0, 10]}), clock)
