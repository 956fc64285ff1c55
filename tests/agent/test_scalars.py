"""What an agent does, in the tables and files of `loggers`, and in pictures."""

import csv

import pytest

from returnn_lite.config import Config
from returnn_lite.engine.tasks.plot_schedule import scheduled_values, undone_rates
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from tests.agent.helpers import AGENT, config, write_agent
from tests.engine.helpers import run

WILD = {"action": "linear", "lr_range": (1e-3, 1e3), "observation": "fixed"}


def table(path) -> dict[tuple[int, str], float]:
    """A table of `loggers`; each scalar once."""
    with open(path, newline="") as file:
        rows = [((int(row["epoch"]), row["scalar"]), float(row["value"])) for row in csv.DictReader(file)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_scalars_of_a_training_with_an_agent(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=-0.5)
    made = config(tmp_path, learning_rate_control="learned", loggers=["csv"], lr_agent={"num_epochs": 5})
    run({**made, "num_epochs": 3})
    run(made)
    found, records = table(tmp_path / "model.epochs.csv"), lr_file.read(str(tmp_path / "rates"))
    for epoch, record in records.items():
        assert found[epoch, "agent/learning_rate"] == pytest.approx(record.learning_rate)
        assert (found[epoch, "agent/action"], found[epoch, "agent/undone"]) == (-0.5, 0)
        assert found[epoch, "agent/observation/start"] == (epoch == 1)
    assert found[2, "agent/observation/alignment"] == pytest.approx(3 * records[1].meta["agent_epoch"]["alignment"])


def test_an_epoch_that_is_undone_leaves_only_the_count(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=1.0, **WILD)
    made = config(tmp_path, learning_rate_control="learned", num_epochs=1, loggers=["csv"])
    run(made)
    found, record = table(tmp_path / "model.epochs.csv"), lr_file.read(str(tmp_path / "rates"))[1]
    assert found[1, "agent/undone"] == len(record.meta["agent_rollbacks"]) > 0
    assert found[1, "epoch_dev/cost:output"] == pytest.approx(record.error["dev_score"])
    assert found[1, "epoch/learning_rate"] == pytest.approx(record.learning_rate)


def test_tensorboard_shows_the_agent(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_agent(tmp_path / "agent.zip", bias=1.0, **WILD)
    folder = tmp_path / "board"
    run(config(tmp_path, learning_rate_control="learned", num_epochs=2, tf_log_dir=str(folder)))
    events = EventAccumulator(str(folder / "epochs"))
    events.Reload()
    assert {"agent/action", "agent/observation/score", "agent/undone"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("epoch_dev/cost:output")] == [1, 2]


def test_scalars_of_the_training_of_an_agent(tmp_path):
    pytest.importorskip("stable_baselines3")
    made = config(tmp_path, task="train_lr_agent", loggers={"csv": {"base": str(tmp_path / "all")}})
    run({**made, "lr_agent": {**AGENT, "budget": 16}})
    run({**made, "lr_agent": AGENT})
    found = table(tmp_path / "all.agent.zip.epochs.csv")
    assert [episode for episode, name in found if name == "episode/reward"] == [1, 2, 3, 4]
    assert {name.partition("/")[2] for _, name in found} == {
        "reward", "final_score", "learning_rate", "undone", "diverged"}  # fmt: skip
    assert not (tmp_path / "all.epochs.csv").exists()


def test_the_schedule_so_far(tmp_path):
    write_agent(tmp_path / "agent.zip", bias=1.0, **WILD)
    made = config(tmp_path, learning_rate_control="learned", num_epochs=2)
    run(made)
    again = Config({**made, "num_epochs": 5})
    rates = {int(time): values["learning_rate"] for time, values in scheduled_values(again, Log.silent())}
    records = lr_file.read(str(tmp_path / "rates"))
    assert rates == pytest.approx({epoch - 1: record.learning_rate for epoch, record in records.items()})
    epochs, failed = undone_rates(again, Log.silent())
    assert epochs[0] == 0.0 and failed[0] == pytest.approx(1e3)
    pytest.importorskip("matplotlib")
    for task in ("plot_schedule", "plot_scores"):
        run({**made, "num_epochs": 5, "task": task, "output_file": str(tmp_path / f"{task}.png")})
        assert (tmp_path / f"{task}.png").read_bytes().startswith(b"\x89PNG")
