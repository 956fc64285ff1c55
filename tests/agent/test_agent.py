"""Training agents and using them: small budgets, files, restarts, wrong configs."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from returnn_lite.agent.runs import Run, constant, play, untrained
from returnn_lite.agent.save import check_same, plain_options
from returnn_lite.agent.session import Session
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.agent_file import AgentFile
from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.learned import Learned
from tests.agent.helpers import AGENT, config, write_agent
from tests.engine.helpers import ROOT, command, run

pytest.importorskip("stable_baselines3")


def learn(folder, **changes) -> tuple[AgentFile, list[str]]:
    made = {**config(folder), "task": "train_lr_agent", **changes}
    lines = run(made)
    return AgentFile.load(made["learning_rate_agent"]), lines


def weights(agent: AgentFile) -> list[float]:
    return [float(x) for pair in agent.layers for array in pair for x in array.reshape(-1)]


def use(folder, **changes) -> dict[int, lr_file.Record]:
    run(config(folder, learning_rate_control="learned", **changes))
    return lr_file.read(str(folder / "rates"))


@pytest.mark.parametrize("vec, form", [("auto", "lockstep"), ("dummy", "dummy"), ("subproc", "subproc")])
def test_two_rollouts(tmp_path, vec, form):
    agent, lines = learn(tmp_path, lr_agent={**AGENT, "vec": vec})
    assert any(f"2 environments ({form}), 5 epochs each" in line for line in lines)
    used = agent.info["used"]
    assert (used["epochs"], used["episodes"]) == (26, 4)  # 6 of the range test, two rollouts of 10
    assert used["updates"] == 26 * 3
    journal = (tmp_path / "agent.zip.log.jsonl").read_text().splitlines()
    assert len(journal) == 4
    assert agent.info["layers"] == {"h": 25, "output": 24}
    assert not list(tmp_path.glob("model*")) and not (tmp_path / "rates").exists()


def test_environments_in_processes_that_are_not_forked(tmp_path, monkeypatch):
    monkeypatch.setattr("returnn_lite.agent.gym_forms.START_METHOD", "spawn")
    _, lines = learn(tmp_path, lr_agent={**AGENT, "vec": "subproc"})
    assert any("2 environments (subproc), 5 epochs each" in line for line in lines)


def test_same_seed_same_agent(tmp_path):
    first, second, other = (tmp_path / name for name in "abc")
    for folder in (first, second, other):
        folder.mkdir()
    assert weights(learn(first)[0]) == weights(learn(second)[0])
    assert weights(learn(first)[0]) != weights(learn(other, lr_agent={**AGENT, "seed": 4})[0])


@pytest.mark.parametrize("options", [
    {},
    {"mode": "paper", "budget": 24, "ppo": {"n_steps": 4}},  # rollouts end within episodes
    {"normalize": True},
])  # fmt: skip
def test_going_on_is_as_never_stopped(tmp_path, options):
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir(), part.mkdir()
    small = {**AGENT, "budget": 36, **options}
    first = {**small, "budget": 16}
    assert weights(learn(part, lr_agent=first)[0]) != weights(learn(whole, lr_agent=small)[0])
    resumed, lines = learn(part, lr_agent=small)
    assert any("continuing" in line for line in lines)
    assert weights(resumed) == weights(learn(whole, lr_agent=small)[0])
    assert resumed.info["used"]["epochs"] == AgentFile.load(str(whole / "agent.zip")).info["used"]["epochs"]
    journals = [(folder / "agent.zip.log.jsonl").read_text() for folder in (whole, part)]
    assert journals[0] == journals[1]


def test_killed_training_goes_on(tmp_path):
    text = (
        "#!rnn.py\nimport sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT)!r})\nfrom tests.agent.helpers import AGENT, config as made\n"
        "globals().update(made(Path('.'), lr_agent={**AGENT, 'budget': 126}))\n"
    )
    (tmp_path / "train.config").write_text(text)
    arguments = command(tmp_path / "train.config", "++task", "train_lr_agent")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while not (tmp_path / "agent.zip").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    killed = AgentFile.load(str(tmp_path / "agent.zip"))
    whole, _ = learn(tmp_path / "whole", lr_agent={**AGENT, "budget": 126})
    assert weights(killed) == weights(whole)


def test_other_options_do_not_go_on(tmp_path):
    learn(tmp_path)
    with pytest.raises(ConfigError, match="must be 0.001 to go on with"):
        learn(tmp_path, lr_agent={**AGENT, "agent_lr": 0.1})


def test_files_of_earlier_versions_go_on_with_what_was_meant():
    old = {"options": {"agent_lr": 0.001}, "layers": {}, "optimizers": [], "num_epochs": 5, "seed": 0}
    now = plain_options(AgentOptions.from_dict({"agent_lr": 0.001}))
    check_same(old, now, old, "agent.zip")
    now["acts_on"] = ["rate", "momentum"]
    with pytest.raises(ConfigError, match=r"must be \['rate'\] to go on with 'agent.zip'"):
        check_same(old, now, old, "agent.zip")


def test_the_policy_is_that_of_the_package(tmp_path):
    from stable_baselines3 import PPO

    agent, _ = learn(tmp_path)
    model = PPO.load(tmp_path / "agent.zip", device="cpu")
    for seen in np.random.default_rng(0).normal(size=(20, 14)).astype("float32"):
        expected = np.clip(model.predict(seen, deterministic=True)[0][0], -1, 1)
        assert agent.act(seen) == pytest.approx(float(expected), abs=1e-6)


def test_the_environment_is_one_of_gymnasium(tmp_path):
    from gymnasium.utils.env_checker import check_env

    from returnn_lite.agent.gym_forms import gym_env

    session = Session.open(Config(config(tmp_path)), Log.silent())
    session.find_top()
    check_env(gym_env(session.environment(0)), skip_render_check=True)


@pytest.mark.parametrize("options, rate", [({}, 0.1), ({"action": "linear", "lr_range": (0.2, 0.4)}, 0.3)])
def test_an_agent_before_its_training_says_0_in_its_own_way(tmp_path, options, rate):
    agent = AgentFile.load(str(write_agent(tmp_path / "agent.zip", **options)))
    session = Session.open(Config(config(tmp_path)), Log.silent())
    session.top = 1.0
    (training,) = play(session, [Run(1, untrained(agent))])
    assert training["learning_rates"] == pytest.approx([rate] * 5)


def test_range_tests_are_longer_before_an_agents_training_than_in_use(tmp_path):
    given = {key: value for key, value in AGENT.items() if key != "range_test_runs"}
    made = Config(config(tmp_path, lr_agent=given))
    assert Session.open(made, Log.silent()).find_top()[0] == 9 * AGENT["range_test_epochs"]
    write_agent(tmp_path / "agent.zip")
    assert Learned.from_config(made, Log.silent()).range_test_options.range_test_runs == 3


# --- use ----------------------------------------------------------------------------------------------------------


def test_rates_of_an_agent(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=-0.5)
    records = use(tmp_path)
    top = records[1].meta["range_test_top"]
    expected = [top / 10 * 10 ** (-0.25 * epoch) for epoch in range(1, 6)]
    assert [records[epoch].learning_rate for epoch in range(1, 6)] == pytest.approx(expected, rel=1e-5)
    assert records[1].meta["initial_dev_score"] > records[5].error["dev_score"]
    assert all(len(records[e].meta["agent_observation"]) == 14 for e in range(1, 6))
    assert [records[e].meta["agent_action"] for e in range(1, 6)] == [-0.5] * 5
    assert len(records[3].meta["agent_epoch"]["grad_norms"]) == 2


@pytest.mark.parametrize("options", [{}, {"observation": "fixed"}, {"deterministic": False}])
def test_restart_in_the_middle(tmp_path, options):
    learn(tmp_path, lr_agent={**AGENT, **options})
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir(), part.mkdir()
    given = {"learning_rate_agent": str(tmp_path / "agent.zip"), "lr_agent": {**options, "num_epochs": 5}}
    records = use(whole, **given)
    use(part, **given, num_epochs=2)
    resumed = use(part, **given, num_epochs=5)
    for epoch in records:
        assert resumed[epoch].learning_rate == records[epoch].learning_rate
        assert resumed[epoch].error == records[epoch].error
        assert resumed[epoch].meta["agent_observation"] == records[epoch].meta["agent_observation"]


def test_divergence_rolls_back_to_a_smaller_rate(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=1.0, action="linear", lr_range=(1e-3, 1e3), observation="fixed")
    lines = run(config(tmp_path, learning_rate_control="learned", num_epochs=2))
    records = lr_file.read(str(tmp_path / "rates"))
    failed = records[1].meta["agent_rollbacks"]
    assert failed == pytest.approx([1e3 * 0.1**i for i in range(len(failed))])
    assert records[1].learning_rate == pytest.approx(1e3 * 0.1 ** len(failed))
    assert records[1].error["dev_score"] < 1.3 * records[1].meta["initial_dev_score"]
    assert any("epoch 1 diverged with learning rate 1000 (score" in line for line in lines)


def test_without_rollback_a_divergence_ends_the_training(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=1.0, action="linear", lr_range=(1e-3, 1e38), observation="fixed")
    with pytest.raises(ConfigError, match="Inf/nan score in "):
        use(tmp_path, lr_agent={"on_divergence": "stop"})


def test_bounds(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=1.0, action="log", observation="fixed")
    options = {"learning_rate": 0.02, "lr_agent": {"max_lr_from_config": True}}
    lines = run(config(tmp_path, learning_rate_control="learned", **options))
    records = lr_file.read(str(tmp_path / "rates"))
    assert {record.learning_rate for record in records.values()} == {0.02}
    assert "learning rate 1 of the agent is out of bounds, 0.02 is used" in lines
    assert "warning: the agent has stayed at the bound 0.02 for 4 epochs" in lines


@pytest.mark.parametrize("info, changes, path, text", [
    ({}, {"learning_rates": [0.1]}, "learning_rates", "cannot be used together"),
    ({}, {"lr_scheduler": {"class": "ConstantLR"}}, "learning_rate_control",
     '"learned" sets the learning rate, but so does'),
    ({}, {"dev": None}, "dev", "needs a dev set"),
    ({}, {"learning_rate_agent": "nowhere.zip"}, "learning_rate_agent", "file 'nowhere.zip' does not exist"),
    ({"optimizers": ["adam"]}, {}, "learning_rate_agent", "trained with the optimizer adam, this training has "),
    ({"layers": {"a": 1}, "options": {"mode": "paper"}}, {}, "learning_rate_agent",
     "the agent was trained with 1 layers (a), this network has 2"),
    ({"format": 7}, {}, "learning_rate_agent", "is of format 7, but this program reads 1"),
])  # fmt: skip
def test_what_does_not_fit(tmp_path, info, changes, path, text):
    write_agent(tmp_path / "agent.zip", info=info)
    made = config(tmp_path, learning_rate_control="learned", **changes)
    with pytest.raises(ConfigError) as caught:
        run({key: value for key, value in made.items() if value is not None})
    assert caught.value.path == path
    assert text in caught.value.message


def test_another_optimizer_on_demand(tmp_path):
    write_agent(tmp_path / "agent.zip", info={"optimizers": ["adam"]})
    assert use(tmp_path, lr_agent={"allow_other_optimizer": True})[5].learning_rate > 0


def test_without_the_packages_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stable_baselines3", None)
    with pytest.raises(ConfigError) as caught:
        learn(tmp_path)
    assert str(caught.value).startswith("task: train_lr_agent needs the extra")
    assert "learned-lr" in str(caught.value)


def test_only_agents_take_epochs_back(tmp_path):
    session = Session.open(Config(config(tmp_path)), Log.silent())
    session.find_top()
    alone, saved = play(session, [Run(1, constant(1e9)), Run(1, constant(1e9), rolls_back=True)])
    assert alone["rollbacks"] == 0 and (alone["diverged"] or alone["scores"][-1] > alone["scores"][0])
    assert saved["rollbacks"] == 5 and saved["scores"] == [saved["scores"][0]] * 6


def test_evaluation(tmp_path):
    learn(tmp_path)
    options = {"grid_points": 3, "grid": (0.01, 1.0), "seeds": 2, "random_runs": 2, "agent_lrs": [0.01]}
    run({**config(tmp_path), "task": "eval_lr_agent", "lr_agent_eval": options})
    table = (tmp_path / "agent.zip.eval.md").read_text()
    for row in ("Agent (practical, seed 3)", "Untrained agent", "Blind replay", "Range test's constant", "Random rates",
                "Best constant of the grid", "OneCycleLR", "SGD", "Adadelta", "Adam-Sch, ConstantLR"):  # fmt: skip
        assert row in table
    assert (tmp_path / "agent.zip.eval.json").exists()
