"""Whole runs with schedulers, averaged models, closures; the picture of a schedule; a config as a .cfg file."""

import re

import pytest
import torch

from returnn_lite.config import load_config
from returnn_lite.engine.checkpoints.checkpoint import read_model
from returnn_lite.engine.tasks.plot_schedule import draw, scheduled_values
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import lr_file
from returnn_lite.tasks import run_task
from tests.engine.helpers import network, options, run


def scheduled(folder, **changes):
    """Three batches an epoch."""
    return options(folder, **{"learning_rate_control": None, "num_workers": 0, **changes})


def records(folder):
    return lr_file.read(str(folder / "rates"))


def test_learning_rate_file(tmp_path):
    run(scheduled(tmp_path, lr_scheduler={"class": "ExponentialLR", "gamma": 0.5, "interval": "step"}))
    found = records(tmp_path)
    assert [record.learning_rate for record in found.values()] == pytest.approx([0.02, 0.02 / 8, 0.02 / 64])
    assert [r.meta["effective_learning_rate"] for r in found.values()] == pytest.approx([0.02, 0.02 / 8, 0.02 / 64])
    assert [r.meta["effective_learning_rate_end"] for r in found.values()] == pytest.approx(
        [0.02 / 4, 0.02 / 32, 0.02 / 256]
    )


def test_learning_rate_file_of_products(tmp_path):
    scheduler = {"class": "ExponentialLR", "gamma": 0.5, "mode_with_control": "multiply"}
    run(scheduled(tmp_path, lr_scheduler=scheduler, learning_rates=[0.3, 0.2, 0.1]))
    found = records(tmp_path)
    assert [record.learning_rate for record in found.values()] == [0.3, 0.2, 0.1]
    assert [r.meta["effective_learning_rate"] for r in found.values()] == pytest.approx([0.3, 0.1, 0.025])
    assert "effective_learning_rate_end" not in found[1].meta


def test_the_scheduler_wins_over_the_file(tmp_path):
    scheduler = {"class": "ExponentialLR", "gamma": 0.5}
    run(scheduled(tmp_path, lr_scheduler=scheduler))
    for path in tmp_path.glob("model.003*"):
        path.unlink()
    text = (tmp_path / "rates").read_text()
    (tmp_path / "rates").write_text(text.replace("learningRate=0.005", "learningRate=0.7"))
    lines = run(scheduled(tmp_path, lr_scheduler=scheduler))
    assert "Warning: epoch 3 is trained with learning rate 0.005, 0.7 is on record." in lines
    assert records(tmp_path)[3].learning_rate == pytest.approx(0.005)


def test_plateau_gets_the_score_of_the_epoch(tmp_path):
    plateau = {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "threshold": 10.0}  # no epoch is good enough
    run(scheduled(tmp_path, lr_scheduler=plateau, num_epochs=4))
    assert [record.learning_rate for record in records(tmp_path).values()] == pytest.approx([0.02, 0.01, 0.005, 0.0025])
    with pytest.raises(ConfigError, match="unknown score 'dev_scor'; did you mean \"dev_score\"?"):
        run(scheduled(tmp_path / "b", lr_scheduler={**plateau, "measure": "dev_scor"}))


def test_schedulers_outlive_the_network(tmp_path):
    def get_network(epoch, **_):
        return network(n_out=3 + epoch)

    growing = {"network": None, "get_network": get_network}
    run(scheduled(tmp_path, lr_scheduler={"class": "ExponentialLR", "gamma": 0.5}, **growing))
    assert [record.learning_rate for record in records(tmp_path).values()] == pytest.approx([0.02, 0.01, 0.005])
    schedule = {"@schedules": "decaying.v1", "base_rate": 1.0, "decay": 1.0}
    for optimizer in ({"class": "thinc.SGD", "learn_rate": schedule}, {"class": "sgd", "schedules": {"lr": schedule}}):
        run(scheduled(tmp_path / optimizer["class"], optimizer=optimizer, learning_rate=None, **growing))
        found = records(tmp_path / optimizer["class"])
        assert [record.learning_rate for record in found.values()] == pytest.approx([1, 1 / 4, 1 / 7])


def test_averaged_model(tmp_path):
    averaging = {"kind": "ema", "decay": 0.5}
    run(scheduled(tmp_path / "a", weight_averaging=averaging))
    run(scheduled(tmp_path / "b"))
    a, b = records(tmp_path / "a"), records(tmp_path / "b")
    assert a[1].error["train_score"] == b[1].error["train_score"] and a[1].error["dev_score"] != b[1].error["dev_score"]
    base = str(tmp_path / "a" / "model.003")
    raw, averaged = read_model(base), read_model(f"{base}.avg.pt")
    assert raw.keys() == averaged.keys() and not torch.equal(raw["h/W"], averaged["h/W"])
    for wanted, score in ((None, "a"), (True, "a"), (False, "b")):
        file = tmp_path / f"scores.{wanted}"
        load = {"task": "eval", "load": base, "eval_output_file": str(file), "load_averaged": wanted}
        with_or_without = averaging if wanted is None else None
        run(scheduled(tmp_path / "c", weight_averaging=with_or_without, **load))
        dev = eval(file.read_text())["dev"]["score"]["cost:output"]
        assert dev == pytest.approx(records(tmp_path / score)[3].error["dev_score"])


def test_cleaning_up_takes_averages_too(tmp_path):
    run(
        scheduled(
            tmp_path,
            weight_averaging={"kind": "ema"},
            num_epochs=4,
            cleanup_old_models={"keep": [], "keep_last_n": 1, "keep_best_n": 0},
        )
    )
    assert sorted(path.name for path in tmp_path.glob("model*")) == [
        "model.004.avg.pt",
        "model.004.opt.pt",
        "model.004.pt",
    ]


def test_optimizer_may_start_anew(tmp_path):
    changes = {"optimizer": {"class": "torch.Adam"}}
    run(scheduled(tmp_path / "a", num_epochs=2, **changes))
    run(scheduled(tmp_path / "a", num_epochs=3, reset_optimizer_on_restart=True, **changes))
    run(scheduled(tmp_path / "b", num_epochs=3, **changes))
    assert not torch.equal(
        read_model(str(tmp_path / "a/model.003"))["h/W"], read_model(str(tmp_path / "b/model.003"))["h/W"]
    )


def test_steps_with_a_closure(tmp_path):
    run(scheduled(tmp_path / "a", optimizer={"class": "torch.SGD", "closure": True, "momentum": 0.9}))
    run(scheduled(tmp_path / "b", optimizer={"class": "torch.SGD", "momentum": 0.9}))
    a, b = read_model(str(tmp_path / "a/model.003")), read_model(str(tmp_path / "b/model.003"))
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- the picture ------------------------------------------------------------------------------------------------------


def test_scheduled_values(tmp_path):
    cycle = {"class": "OneCycleLR", "max_lr": 0.2, "total_steps": "auto"}
    path = tmp_path / "a.py"
    path.write_text("from pathlib import Path\nfrom tests.engine.test_schedules import scheduled\n"
                    f"globals().update(scheduled(Path({str(tmp_path)!r}), lr_scheduler={cycle!r}))\n")  # fmt: skip
    config = load_config([str(path)])
    found = list(scheduled_values(config, Log.silent()))
    run(scheduled(tmp_path, lr_scheduler=cycle))
    assert [time for time, _ in found] == pytest.approx([i / 3 for i in range(9)])
    drawn = [values["learning_rate"] for _, values in found]
    rates = [record.learning_rate for record in records(tmp_path).values()]
    assert drawn[::3] == pytest.approx(rates) and len(set(drawn)) == 9
    assert {name for _, values in found for name in values} == {"learning_rate", "beta1"}


def test_several_curves(tmp_path):
    own = {
        "class": "thinc.Adam",
        "L2": [0.1, 0.2],
        "schedules": {"beta1": [0.8, 0.9]},
        "param_groups": [{"layer": "h", "lr_multiplier": 0.5}],
    }
    config = load_config([])
    config.update(scheduled(tmp_path, optimizer=own, num_epochs=1))
    (first, *_, last) = [values for _, values in scheduled_values(config, Log.silent())]
    assert first == pytest.approx(
        {"learning_rate of h/W, h/b": 0.01, "learning_rate of output/W, output/b": 0.02, "L2": 0.1, "beta1": 0.8}
    )
    assert (last["L2"], last["beta1"]) == (0.2, 0.9)


def test_picture(tmp_path):
    file = tmp_path / "lr.png"
    changes = {"task": "plot_schedule", "output_file": str(file), "learning_rates": {1: 0.1, 3: 0.2}}
    lines = run(scheduled(tmp_path, **changes))
    assert lines[-1] == f"{file}: learning_rate" and file.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr.png"]
    with pytest.raises(ConfigError, match="cannot write"):
        draw({"a": ([0.0], [1.0])}, str(tmp_path / "x.abc"))
    with pytest.raises(ConfigError, match="must be the number of epochs to draw"):
        run(scheduled(tmp_path, **changes, num_epochs=0))


# --- .cfg -------------------------------------------------------------------------------------------------------------

CFG = """
[training]
num_epochs = 2
batch_size = 50
model = "out/model"
learning_rate_file = "out/rates"
device = "cpu"
use_tensorflow = true

[train]
class = "Task12AXDataset"
num_seqs = 5

[extern_data]
data = {"dim": 9}
classes = {"dim": 2, "sparse": true}

[network]

[network.h]
class = "linear"
activation = "tanh"
n_out = 3
from = "data"

[network.output]
class = "softmax"
loss = "ce"
from = "h"

[optimizer]
@optimizers = "Adam.v1"

[optimizer.learn_rate]
@schedules = "warmup_linear.v1"
initial_rate = 0.05
warmup_steps = 2
total_steps = ${training.batch_size}
"""


def test_whole_config_as_cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.cfg").write_text(CFG)
    config = load_config(["train.cfg"], [("num_epochs", "1")])
    assert config.int("num_epochs", 0) == 1 and config.typed["optimizer"]["learn_rate"]["total_steps"] == 50
    run_task(config, Log.silent())
    assert (tmp_path / "out" / "model.001.pt").exists()
    assert re.search(r"learningRate=0.0,", (tmp_path / "out" / "rates").read_text())


@pytest.mark.parametrize("text, message", [
    ("[a.b]\nx = 1\n", "Section 'a' is not defined"),
    ("[a]\nx = 1\nx = 2\n", "option 'x' in section 'a' already exists"),
    ("[a]\nx = ${b.c}\n", "invalid .cfg content"),
    ("[device]\nx = 1\n[training]\ndevice = 1\n", "the option 'device' is given twice"),
])  # fmt: skip
def test_wrong_cfg(tmp_path, text: str, message: str):
    (tmp_path / "a.cfg").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config([str(tmp_path / "a.cfg")])


def test_lines_in_a_file_called_cfg(tmp_path):
    (tmp_path / "a.cfg").write_text("# [no section]\nbatch_size 7\n")
    assert load_config([str(tmp_path / "a.cfg")]).int("batch_size", 0) == 7


def test_missing_confection(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "confection", None)
    (tmp_path / "a.cfg").write_text(CFG)
    with pytest.raises(ConfigError, match='install the extra "thinc"'):
        load_config([str(tmp_path / "a.cfg")])
