"""The demo with a convolutional net: trainings in lock-step, an agent, and the published tables."""

import pytest

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.config import Config, load_config
from returnn_lite.log import Log
from returnn_lite.tasks import run_task
from returnn_lite.trials.lockstep import LockStep
from returnn_lite.trials.shared_data import SharedData
from returnn_lite.trials.trial import Trial
from tests.engine.helpers import ROOT

pytest.importorskip("sklearn")
SMALL = {"num_envs": 2, "budget": 5, "num_epochs": 2, "range_test_epochs": 1, "range_test_runs": 1}
EVAL = {"seeds": 1, "grid_points": 2, "grid": (0.01, 0.1), "random_runs": 1, "agent_lrs": [0.01], "optimizers": ["SGD"]}


def demo(folder, **changes) -> Config:
    config = load_config([str(ROOT / "demos/learned-lr/digits_conv.config")], [("out", str(folder)), ("channels", "2")])
    few = {name: {**config.typed[name], "data": config.typed[name]["data"][:128]} for name in ("train", "dev")}
    config.update({**few, "lr_agent": SMALL, "num_epochs": 2, **changes})
    return config


def test_convolutions_and_pooling_train_in_lockstep(tmp_path):
    config = demo(tmp_path)
    shared = SharedData(config, Log.silent())
    trials = [Trial(config, shared) for _ in range(3)]
    lockstep = LockStep(trials[:2])
    assert lockstep.check() == ""
    jobs = [lambda i=i: (trials[i].reset(5 + i), trials[i].epoch(0.2).score) for i in range(2)]
    together = lockstep.run(jobs)
    alone = [(trials[2].reset(5 + i), trials[2].epoch(0.2).score) for i in range(2)]
    assert together == [pytest.approx(pair, rel=1e-3) for pair in alone]
    assert all(after < before for before, after in alone)


def test_the_tables_of_the_paper(tmp_path):
    pytest.importorskip("stable_baselines3")
    run_task(demo(tmp_path, task="train_lr_agent"), Log.silent())
    run_task(demo(tmp_path, task="eval_lr_agent", lr_agent_eval=EVAL), Log.silent())
    text = (tmp_path / "agent.zip.eval.md").read_text()
    (table,) = [part for part in text.split("## ") if part.startswith("Agent LR = initial LR = 0.01")]
    names = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert names == ["| Method", "| SGD", "| SGD-Sch, ConstantLR", "| SGD-Sch, OneCycleLR"]
    assert "| Agent (practical, seed 0) |" in text.partition("Agent LR = initial LR = 0.001")[2]
