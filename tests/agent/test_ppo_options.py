"""Options of an agent's training that are functions, and PPO's own log."""

import functools
import os

import pytest

from returnn_lite.agent.same import alike, described
from returnn_lite.errors import ConfigError
from tests.agent.helpers import AGENT, config
from tests.engine.helpers import run

pytest.importorskip("stable_baselines3")


def learn(folder, **changes):
    """Trains an agent; the log's lines."""
    folder.mkdir(exist_ok=True)
    return run({**config(folder), "task": "train_lr_agent", "lr_agent": {**AGENT, **changes}})


def falling(seen, top=0.01):
    """A schedule that remembers what it was given."""

    def schedule(left):
        seen.append(left)
        return top * left

    return schedule


@pytest.mark.parametrize("option", ["agent_lr", "clip_range"])
@pytest.mark.parametrize("changes, expected", [
    ({"budget": 16}, [0.5]),  # 6 epochs of the range test, then rollouts of 10
    ({"budget": 36}, [5 / 6, 3 / 6, 1 / 6]),
    ({"budget": 59}, [0.9, 0.7, 0.5, 0.3, 0.1]),
    ({"budget": 24, "mode": "paper", "ppo": {"n_steps": 4}}, [5 / 6, 3 / 6, 1 / 6]),
])  # fmt: skip
def test_schedules_fall_over_the_whole_budget(tmp_path, option, changes, expected):
    seen = []
    ppo = changes.get("ppo", {})
    given = {"agent_lr": falling(seen)} if option == "agent_lr" else {"ppo": {**ppo, option: falling(seen)}}
    learn(tmp_path, **{**changes, **given})
    updates = seen[1:] if seen[0] == 1.0 else seen  # the first is of the construction
    found = list(dict.fromkeys(updates))
    assert found == pytest.approx(expected)


def test_a_limit_of_updates_is_a_budget_too(tmp_path):
    seen = []
    learn(tmp_path, budget=500, budget_updates=90, agent_lr=falling(seen))  # 18, then 30 in a rollout
    found = list(dict.fromkeys(seen[1:]))
    assert found == pytest.approx([5 / 6, 3 / 6, 1 / 6])


def test_going_on_goes_on_falling(tmp_path):
    seen, again = [], []
    learn(tmp_path, budget=26, agent_lr=falling(seen))
    lines = learn(tmp_path, budget=46, agent_lr=falling(again))
    assert any("continuing" in line for line in lines)
    assert list(dict.fromkeys(again[1:])) == pytest.approx([3 / 8, 1 / 8])


def test_another_function_does_not_go_on(tmp_path):
    learn(tmp_path, budget=16, ppo={"clip_range": falling([])})
    with pytest.raises(ConfigError, match=r'lr_agent\["ppo"\]: must be .*falling.*schedule'):
        learn(tmp_path, budget=26, ppo={"clip_range": falling([], top=0.2)})
    with pytest.raises(ConfigError, match=r'lr_agent\["ppo"\]'):
        learn(tmp_path, budget=26, ppo={"clip_range": lambda left: 0.01})


def made(factor):
    return lambda left: factor * left


class Linear:
    def __init__(self, end):
        self.end, self.inner = end, made(end)

    def __call__(self, left):
        return self.end * left


def test_functions_are_compared_by_what_they_do():
    for first, second, other in (
        (made(2), made(2), made(3)),
        (Linear(2), Linear(2), Linear(3)),
        (functools.partial(made(1), 2), functools.partial(made(1), 2), functools.partial(made(1), 3)),
        (Linear(2).__call__, Linear(2).__call__, Linear(3).__call__),
        (Linear, Linear, int),
    ):
        assert alike(described(first), described(second)) and not alike(described(first), described(other))
        assert "0x" not in str(described(first))
    name = made.__qualname__
    assert alike(f"<function {name} at 0x7f0011>", described(made))
    assert not alike("<function falling at 0x7f0011>", described(made))
    assert alike({**described(made), "python": "3.1", "code": "x"}, described(made))


def test_the_log_of_ppo(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    learn(tmp_path, budget=26, ppo={"tensorboard_log": str(board)})
    learn(tmp_path, budget=46, ppo={"tensorboard_log": str(board)})
    folders = sorted(os.listdir(board))
    assert len(folders) == 2
    steps = []
    for folder in folders:
        events = EventAccumulator(str(board / folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        assert {"train/loss", "train/learning_rate", "rollout/final_score", "rollout/epochs"} <= set(tags)
        steps += [event.step for event in events.Scalars("train/loss")]
    assert steps == [10, 20, 30, 40]
    learn(tmp_path, budget=56)  # where that is written does not matter for going on
