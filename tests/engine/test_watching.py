"""What is seen of a training: scalars in tables and services, pictures, costs of layers, a line on terminals."""

import csv
import io
import re
import threading

import pytest

from returnn_lite.config import Config
from returnn_lite.engine.loggers import background
from returnn_lite.engine.loggers.background import InBackground
from returnn_lite.engine.loggers.scalar_log import ScalarLog, loggers
from returnn_lite.engine.loggers.services import _plain
from returnn_lite.engine.tasks.plot_scores import score_panels
from returnn_lite.engine.tasks.profile import Cost, Stopwatch, size_of, table
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log, Target
from returnn_lite.schedule.lr_file import Record
from tests.engine import torch_models
from tests.engine.helpers import Lines, options, run

EVERY = {"tensorboard_opts": {"log_every_n_train_steps": 1}, "tf_log_dir": False, "num_epochs": 3}


def rows(path):
    with open(path, newline="") as file:
        return [(int(row["step" if "step" in row else "epoch"]), row["scalar"]) for row in csv.DictReader(file)]


def test_tables(tmp_path):
    """A line for each scalar; one that goes on repeats nothing."""
    made = options(tmp_path, loggers=["csv"], **EVERY)
    run({**made, "num_epochs": 2})
    run(made)
    steps, epochs = rows(tmp_path / "model.steps.csv"), rows(tmp_path / "model.epochs.csv")
    assert [step for step, name in steps if name == "train/loss"] == list(range(steps[-1][0] + 1))
    assert steps[-1][0] >= 8
    assert [epoch for epoch, name in epochs if name == "epoch_dev/cost:output"] == [1, 2, 3]
    assert len(set(epochs)) == len(epochs) and (2, "epoch/learning_rate") in epochs
    run({**made, "start_epoch": 2})
    assert rows(tmp_path / "model.epochs.csv") == epochs


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["csvs"], "loggers: unknown logger 'csvs'; did you mean \"csv\"?: csv, mlflow, tensorboard, wandb"),
        (5, "loggers: must be a list of names, or a dict of options by name, but is 5 instead"),
        ({"csv": "x"}, "loggers[\"csv\"]: must be a dict of options, but is 'x' instead"),
    ],
)
def test_wrong_loggers(value, text):
    with pytest.raises(ConfigError) as caught:
        loggers(Config({"loggers": value}))
    assert str(caught.value) == text


def test_a_logger_that_cannot_write_does_not_end_the_run(tmp_path):
    (tmp_path / "no").write_text("no folder")
    made = options(tmp_path, loggers={"csv": {"base": str(tmp_path / "no" / "x")}}, **EVERY)
    lines = run(made)
    assert len([line for line in lines if line.startswith("WARNING: loggers: no further scalars for csv: ")]) == 1
    assert (tmp_path / "model.003.pt").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"csv": {"bse": "x"}}, 'loggers["csv"]: unknown option \'bse\'; did you mean "base"?: base'),
        ({"tensorboard": {"folder": 5}}, 'loggers["tensorboard"]["folder"]: must be a text, but is 5 instead'),
        ({"mlflow": {"url": "x"}}, "loggers[\"mlflow\"]: unknown option 'url': experiment, tracking_uri"),
        ({"mlflow": {"experiment": ""}}, 'loggers["mlflow"]["experiment"]: must be a text, but is \'\' instead'),
    ],
)
def test_wrong_options_of_loggers(value, text):
    with pytest.raises(ConfigError) as caught:
        ScalarLog.from_config(Config({"loggers": value}), Log([]))
    assert str(caught.value) == text


class Service:
    """Notes what it gets, once `answers` is set. `fails`: what it raises instead."""

    name = "json"  # any package

    def __init__(self, fails=None):
        self.answers, self.fails, self.seen = threading.Event(), fails, []

    def note(self, *what):
        self.answers.wait(10)
        if self.fails:
            raise self.fails
        self.seen.append(what)

    begin = step = epoch = note

    def close(self):
        self.note()


def test_a_slow_service_does_not_hold_up_the_run():
    service, log = Service(), ScalarLog([], Log([]))
    log.waiting = [InBackground(service)]
    log.start(1, 0)
    log.noted(1, {"a": 2.0})
    assert service.seen == []
    service.answers.set()
    log.close()
    assert service.seen == [(1, 0), (1, {"a": 2.0}), ()]


def test_a_service_that_never_answers_ends_with_one_warning(monkeypatch):
    monkeypatch.setattr(background, "PATIENCE", 0.05)
    service, target = Service(), Lines()
    log = ScalarLog([InBackground(service)], Log([target]))
    log.start(1, 0)
    log.close()
    service.answers.set()
    assert target.lines == ["WARNING: loggers: no further scalars for json: no answer within 0.05 seconds"]


@pytest.mark.parametrize("error", [OSError("down,\n  or out"), ImportError("down, or out")])
def test_a_service_that_fails_is_one_warning(error):
    service, target = Service(error), Lines()
    log = ScalarLog([InBackground(service)], Log([target]))
    service.answers.set()
    log.start(1, 0)
    for epoch in (1, 2):
        log.noted(epoch, {"a": 2.0})
        log.close()
    assert len(target.lines) == 1 and target.lines[0].endswith(": down, or out")


def mlflow_points(place, experiment="toy"):
    """(step, value) of each scalar of the only run."""
    client = pytest.importorskip("mlflow").MlflowClient(place)
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    histories = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    return found, {name: [(one.step, one.value) for one in history] for name, history in histories.items()}


def test_mlflow(tmp_path, monkeypatch):
    """A resumed run goes on, and repeats nothing that is the same; what has changed is there, too."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    place = (tmp_path / "runs").as_uri()
    made = options(tmp_path, loggers={"mlflow": {"tracking_uri": place, "experiment": "toy"}}, **EVERY)
    run({**made, "num_epochs": 2})
    assert not [line for line in run(made) if "WARNING" in line]
    ended, points = mlflow_points(place)
    assert ended.info.status == "FINISHED"
    assert [epoch for epoch, _ in points["epoch_dev/cost.output"]] == [1, 2, 3]
    for file in tmp_path.glob("model.003.*"):
        file.unlink()
    run(made)
    assert mlflow_points(place)[1] == points
    run({**made, "start_epoch": 2})  # without the optimizer's state
    changed = [step for step, _ in mlflow_points(place)[1]["train/cost.output"]][9:]
    assert changed and set(changed) <= {3, 4, 5, 6, 7, 8}


def test_mlflow_in_a_folder_by_default(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(options(tmp_path, loggers=["mlflow"], **EVERY))
    assert "train/loss" in mlflow_points(str(tmp_path / "mlruns"), "returnn_lite")[1]


def test_names_for_mlflow():
    assert _plain("epoch_dev/cost:sub/ctc [1]") == "epoch_dev/cost.sub.ctc .1."
    assert _plain("a/../../b") == "a/......b" and len(_plain("a/" + "x" * 300)) == 250


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    lines = run(options(tmp_path, loggers={"wandb": {"project": "toy"}}, **EVERY))
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert not [line for line in lines if "WARNING" in line]


def test_wrong_options_of_wandb():
    pytest.importorskip("wandb")
    with pytest.raises(ConfigError, match="unknown option 'projct'; did you mean \"project\""):
        ScalarLog.from_config(Config({"loggers": {"wandb": {"projct": "x"}}}), Log([]))


# --- pictures and tables ----------------------------------------------------------------------------------------------


def test_what_a_picture_of_scores_shows():
    records = {
        1: Record(0.1, {"train_score": 2.0, "dev_score": 2.5, "dev_error": 0.5, ":meta:x": 1.0}),
        2: Record(0.05, {"train_score": 1.0, "my_set_loss_ce": 3.0}),
    }
    assert score_panels(records) == {
        "score": {"train": ([1, 2], [2.0, 1.0]), "dev": ([1], [2.5])},
        "error": {"dev": ([1], [0.5])},
        "loss_ce": {"my_set": ([2], [3.0])},
        "learning rate": {"learning rate": ([1, 2], [0.1, 0.05])},
    }


def test_a_picture_of_scores_shows_what_an_agent_did():
    records = {
        1: Record(0.1, {"dev_score": 2.0}, {"agent_action": 0.5}),
        2: Record(0.02, {"dev_score": 1.0}, {"agent_action": -0.5, "agent_rollbacks": [2.0, 0.2]}),
    }
    records[2].meta["agent_settings"] = {"momentum": 0.95}
    panels = score_panels(records)
    assert panels["momentum"] == {"momentum": ([2], [0.95])}
    assert panels["learning rate"] == {"learning rate": ([1, 2], [0.1, 0.02]), "undone": ([2, 2], [2.0, 0.2])}
    assert panels["agent's action"] == {"agent's action": ([1, 2], [0.5, -0.5])}


def test_a_picture_of_scores(tmp_path):
    pytest.importorskip("matplotlib")
    made = options(tmp_path, output_file=str(tmp_path / "scores.png"))
    with pytest.raises(ConfigError, match="has no scores yet"):
        run({**made, "task": "plot_scores"})
    run({**made, "num_epochs": 2})
    lines = run({**made, "task": "plot_scores"})
    assert lines[-1] == f"{tmp_path / 'scores.png'}: error, score, learning rate"
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="must be the file with the scores of a training, but is not set"):
        run({**made, "task": "plot_scores", "learning_rate_file": None})


@pytest.mark.parametrize("make", [options, torch_models.options])
def test_costs_of_layers(tmp_path, make):
    """Of layers, and of modules; nothing is written."""
    lines = run(make(tmp_path, task="profile"))
    start = next(i for i, line in enumerate(lines) if line.startswith("layer  "))
    assert lines[start].split() == ["layer", "class", "calls", "ms", "%", "MB", "of", "output", "parameters"]
    names = {line.split()[0] for line in lines[start + 1 : -1]}
    assert names >= ({"h", "output"} if make is options else {"hidden", "norm", "dropout", "out"})
    assert re.match(r"mean of [123] steps: forward: .* ms a step, backward and update: ", lines[-1])
    assert not list(tmp_path.iterdir())


def test_a_table_of_costs():
    import torch

    watch = Stopwatch(torch.device("cpu"), {"a": Cost("linear", 20, 4, 0.006, 4 * 2**20), "b": Cost("copy", 0)})
    watch.costs["outer"] = Cost("subnetwork", 0, 2, 0.002, 0)
    assert [line.split() for line in table(watch, 2)[1:]] == [
        ["a", "linear", "2", "3.000", "75.0", "2.00", "20"],
        ["outer", "subnetwork", "1", "1.000", "25.0", "0.00", "0"],
    ]
    inner = watch.timed("a", lambda: torch.zeros(3))
    watch.timed("outer", lambda: [inner(), inner()])()
    assert watch.costs["a"].calls == 6 and watch.costs["outer"].bytes == 24 and not watch.inside
    assert size_of({"x": (torch.zeros(2, dtype=torch.float64), None)}) == 16


# --- a line on terminals ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What a terminal gets."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("terminal", "verbosity", "shown"), [(True, 3, True), (True, 5, False), (False, 3, False)])
def test_a_passing_line(monkeypatch, terminal, verbosity, shown):
    """On terminals only, and not beside a line for each step; the next message replaces it."""
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    log = Log([Target(verbosity, "default")])
    assert log.on_terminal is shown
    log.write_passing("step 1" + "x" * 1000)
    log.v1("a message")
    log.v1("another")
    log.write_passing("")
    text = stream.getvalue()
    assert text.endswith(("\r\x1b[K" * shown) + "a message\nanother\n") and ("step 1" in text) is shown
    assert max(map(len, text.split("\r"))) < 300


def test_the_line_of_a_training(tmp_path, monkeypatch):
    from returnn_lite.engine import progress
    from returnn_lite.tasks import run_task

    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr(progress, "SECONDS_SHOWN", -1.0)
    run_task(Config(options(tmp_path, num_epochs=1)), Log([Target(3, "default")]))
    found = [line for line in stream.getvalue().split("\r\x1b[K") if "train epoch 1, step" in line]
    assert len(found) >= 3 and found[-1].startswith("━" * 10) and "remaining 0:00:0" in found[-1]
