"""Agents that set more than the learning rate: the momentum, and the learning rates of groups of parameters."""

import math

import pytest
from numpy.testing import assert_allclose

from returnn_lite.agent.environment import Environment
from returnn_lite.agent.runs import Run, by_agent, listed, play, untrained
from returnn_lite.agent.session import Session
from returnn_lite.agent.tables import Row
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from returnn_lite.schedule.agent_file import AgentFile
from returnn_lite.schedule.agent_options import AgentOptions
from returnn_lite.schedule.episode import Episode
from returnn_lite.schedule.levers import value, values_of
from returnn_lite.schedule.observations import names
from tests.agent.helpers import AGENT, ScriptedTrial, config, write_agent
from tests.engine.helpers import run

BOTH = ["rate", "momentum", "group:hidden"]
GROUPS = [{"layer": "h", "name": "hidden"}]
MOMENTUM = {"class": "momentum", "momentum": 0.9, "param_groups": GROUPS}
INFO = {"optimizers": ["momentum"]}


def made(folder, **changes) -> dict:
    return config(folder, **{"optimizer": MOMENTUM, "lr_agent": {**AGENT, "acts_on": BOTH}, **changes})


def use(folder, **changes) -> dict[int, lr_file.Record]:
    run(made(folder, learning_rate_control="learned", **changes))
    return lr_file.read(str(folder / "rates"))


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, action, expected", [
    ("momentum", 0.0, 0.9), ("momentum", 1.0, 1 - 0.1 * 10**-0.25), ("momentum", -1.0, 1 - 0.1 * 10**0.25),
    ("group:a", 0.0, 2.0), ("group:a", 0.4, 2 * 10**0.1), ("group:a", -7.0, 2 * 10**-0.25),
])  # fmt: skip
def test_steps(name, action, expected):
    episode = Episode(4, 2.0, settings={"momentum": 0.9, "group:a": 2.0})
    assert value(AgentOptions(), episode, name, action) == pytest.approx(expected)


@pytest.mark.parametrize("action", ["linear", "log"])
def test_absolute_values(action):
    options = AgentOptions.from_dict({"action": action, "momentum_range": (0.5, 0.995), "group_range": 4.0})
    episode = Episode(4, 2.0, settings={"momentum": 0.9, "group:a": 2.0})
    found = [value(options, episode, "momentum", said) for said in (-1.0, 0.0, 1.0)]
    assert_allclose(found, [0.5, 0.95, 0.995], rtol=1e-7)
    assert_allclose([value(options, episode, "group:a", said) for said in (-1.0, 0.0, 1.0)], [0.25, 1.0, 4.0])


def test_settings_stay_within_bounds_and_are_seen():
    options = AgentOptions.from_dict({"acts_on": ["rate", "momentum"], "momentum_range": (0.0, 0.95)})
    trial = ScriptedTrial(2.0, [1.5, 1.2, 1.1, 1.0], {"a": (4, 2.0)})
    trial.settings = {"momentum": 0.9, "group:other": 1.0}
    env = Environment(trial, options, 4, 0.9, 7)
    assert env.reset(1)[-1] == 0.0 and (env.observation_size, env.action_size) == (15, 2)
    env.step([0.0, 0.5])
    seen = env.step([0.0, 1.0])[0]
    assert [put["momentum"] for put in trial.put] == pytest.approx([1 - 0.1 * 10**-0.125, 0.95])
    assert seen[-1] == pytest.approx(math.log10(2)) and names("dynamics", {}, options.acts_on)[-1] == "momentum"
    env.step([0.0, -1.0])
    training = env.step([0.0, -1.0])[3]["training"]
    assert training["settings"]["momentum"][-1] == pytest.approx(1 - 0.05 * 10**0.5) and len(training["actions"]) == 4


def test_means_are_taken_on_the_scales():
    values = {"learning_rates": [1.0], "scores": [2.0, 1.0], "diverged": False, "varied": [2.0, 1.0, 1.0]}
    first = {**values, "settings": {"momentum": [0.9], "group:a": [1.0]}}
    second = {**values, "learning_rates": [4.0], "settings": {"momentum": [0.999], "group:a": [9.0]}}
    row = Row("", [first, second])
    (mean,) = row.mean_values()
    assert mean == pytest.approx({"rate": 2.0, "momentum": 0.99, "group:a": 3.0})
    assert row.mean_values(relative=True)[0]["rate"] == pytest.approx(1.0)


@pytest.mark.parametrize("given, path, text", [
    ({"acts_on": ["momentum"]}, "acts_on", "must be a list that begins with"),
    ({"acts_on": "rate"}, "acts_on", "must be a list that begins with"),
    ({"acts_on": ["rate", "momentun"]}, "acts_on", 'but has \'momentun\'; did you mean "momentum"?'),
    ({"acts_on": ["rate", "group:"]}, "acts_on", "but has 'group:'"),
    ({"acts_on": ["rate", "momentum", "momentum"]}, "acts_on", "'momentum' twice"),
    ({"momentum_range": (0.5, 1.0)}, "momentum_range", "0 <= lowest < highest < 1"),
    ({"group_range": 1}, "group_range", "must be a number above 1, but is 1 instead"),
])  # fmt: skip
def test_wrong_options(given, path, text):
    with pytest.raises(ConfigError) as caught:
        AgentOptions.from_dict(given)
    assert caught.value.path == f'lr_agent["{path}"]' and text in caught.value.message


# --- trainings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer, option", [("momentum", "momentum"), ("torch.SGD", "momentum"), ("adam", "beta1")])
def test_what_is_set_counts(tmp_path, optimizer, option):
    """As if the config itself said so."""
    (tmp_path / "other").mkdir()
    said = {"bias": [0.0, 0.4, 0.8], "action": "log", "lr_range": (0.01, 0.04), "observation": "fixed", "acts_on": BOTH}
    write_agent(tmp_path / "agent.zip", **said, info={"optimizers": [optimizer] * 2})
    own = {"class": optimizer, option: 0.7, "param_groups": GROUPS}
    record = use(tmp_path, num_epochs=1, optimizer=own, lr_agent={}, loggers=["csv"])[1]
    scalars = (tmp_path / "model.epochs.csv").read_text()
    assert "1,agent/momentum,0.9601" in scalars and "1,agent/action/group:hidden,0.8" in scalars
    assert record.meta["agent_settings"] == pytest.approx({"momentum": 1 - 10**-1.4, "group:hidden": 10**0.8})
    assert record.meta["agent_actions"] == pytest.approx({"momentum": 0.4, "group:hidden": 0.8})
    own = {"class": optimizer, option: 1 - 10**-1.4, "param_groups": [{"layer": "h", "lr_multiplier": 10**0.8}]}
    run(config(tmp_path / "other", num_epochs=1, optimizer=own, learning_rate=record.learning_rate))
    other = lr_file.read(str(tmp_path / "other" / "rates"))[1]
    assert record.error["dev_score"] == pytest.approx(other.error["dev_score"], rel=1e-5)


@pytest.mark.parametrize("vec", ["lockstep", "dummy"])
def test_going_on_is_as_never_stopped(tmp_path, vec):
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir(), part.mkdir()
    options = {**AGENT, "acts_on": BOTH, "mode": "paper", "ppo": {"n_steps": 4}, "vec": vec, "optimizer": "config"}
    run(made(whole, task="train_lr_agent", lr_agent={**options, "budget": 24}))
    for budget in (8, 24):  # rollouts end within episodes
        run(made(part, task="train_lr_agent", lr_agent={**options, "budget": budget}))
    agents = [AgentFile.load(str(folder / "agent.zip")) for folder in (whole, part)]
    assert agents[0].layers[-1][0].shape == (3, 64) and agents[0].info["options"]["acts_on"] == BOTH
    for one, other in zip(*(agent.layers for agent in agents), strict=True):
        assert (one[0] == other[0]).all() and (one[1] == other[1]).all()
    journals = [(folder / "agent.zip.log.jsonl").read_text() for folder in (whole, part)]
    assert journals[0] == journals[1] and '"settings": {"momentum": [' in journals[0]


def test_use_restart_and_evaluation(tmp_path):
    run(made(tmp_path, task="train_lr_agent"))
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir(), part.mkdir()
    given = {"learning_rate_agent": str(tmp_path / "agent.zip"), "lr_agent": {"num_epochs": 5}}
    records = use(whole, **given)
    use(part, **given, num_epochs=2)
    lines = run(made(part, **given, learning_rate_control="learned", num_epochs=5))
    assert lr_file.read(str(part / "rates")).keys() == records.keys()
    for epoch, record in lr_file.read(str(part / "rates")).items():
        assert record.meta["agent_settings"] == records[epoch].meta["agent_settings"]
        assert (record.learning_rate, record.error) == (records[epoch].learning_rate, records[epoch].error)
    assert not [line for line in lines if "as the config says" in line]
    options = {"grid_points": 2, "seeds": 2, "random_runs": 1, "agent_lrs": [0.01]}
    run(made(tmp_path, task="eval_lr_agent", lr_agent_eval=options))
    assert "Blind replay" in (tmp_path / "agent.zip.eval.md").read_text()


def test_a_replay_is_the_same_training(tmp_path):
    agent = AgentFile.load(str(write_agent(tmp_path / "agent.zip", bias=[0.1, 0.2, -0.3], acts_on=BOTH, info=INFO)))
    session = Session.open(Config(made(tmp_path)), Log.silent())
    session.top = 0.1
    (training,) = play(session, [Run(1, by_agent(agent))])
    values = Row("", [training]).mean_values()
    (again,) = play(session, [Run(1, listed(values))])
    assert_allclose(again["scores"], training["scores"], rtol=1e-4)
    (start,) = play(session, [Run(1, untrained(agent))])
    assert start["settings"] == {"momentum": [0.9] * 5, "group:hidden": [1.0] * 5}
    assert start["scores"] != training["scores"]


NO_GROUP = {"class": "momentum", "momentum": 0.9}
MISSPELT = {**MOMENTUM, "param_groups": [{"layer": "h", "name": "hiden"}]}


@pytest.mark.parametrize("optimizer, text", [
    (NO_GROUP, 'which the agent acts on, needs a group of `param_groups` with "name": \'hidden\', but no group has'),
    (MISSPELT, 'but the names are hiden; did you mean "hiden"?'),
    ({"class": "gradientdescent", "param_groups": GROUPS}, '"momentum", which the agent acts on, needs an optimizer'),
])  # fmt: skip
def test_trainings_that_lack_something(tmp_path, optimizer, text):
    write_agent(tmp_path / "agent.zip", bias=[0.0] * 3, acts_on=BOTH, info=INFO)
    with pytest.raises(ConfigError) as caught:
        use(tmp_path, optimizer=optimizer, lr_agent={"allow_other_optimizer": optimizer["class"] != "momentum"})
    assert caught.value.path == "learning_rate_agent" and text in caught.value.message
    with pytest.raises(ConfigError) as caught:
        Session.open(Config(made(tmp_path, optimizer=optimizer)), Log.silent())
    assert caught.value.path == 'lr_agent["acts_on"]' and text in caught.value.message


def test_other_actions_than_the_agents_are_refused(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=0.0, info=INFO)
    with pytest.raises(ConfigError, match=r"must be \['rate'\], as .* was trained, but is \['rate', 'momentum'"):
        use(tmp_path)


def test_all_values_come_from_one_action():
    options = AgentOptions.from_dict({"acts_on": BOTH, "action": "linear"})
    episode = Episode(4, 2.0, settings={"momentum": 0.9, "group:hidden": 1.0})
    found = values_of(options, episode, [1.0, 1.0, -1.0])
    assert found == pytest.approx({"rate": 1.0, "momentum": 0.99, "group:hidden": 0.1})


def test_all_agents_of_an_evaluation_must_fit(tmp_path):
    write_agent(tmp_path / "agent.zip")
    other = write_agent(tmp_path / "other.zip", bias=[0.0, 0.0], acts_on=["rate", "momentum"])
    with pytest.raises(ConfigError, match='"momentum", which the agent acts on'):
        run(config(tmp_path, task="eval_lr_agent", lr_agent_eval={"agents": [str(other)]}))
