"""Going on after an end at any point gives the numbers of a run without it."""

import errno
import os

import pytest
import torch

from returnn_lite.engine.checkpoints.resume import steps_of_epochs
from returnn_lite.engine.evaluate import Evaluation
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.lr_file import Record
from tests.engine import small_models
from tests.engine.helpers import dataset, network, options, run


def model(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """A process ends."""


def killed_in_evaluation(folder, epoch, made):
    """Runs a training, which ends while `epoch` is being evaluated."""
    evaluations = []

    def callback(*, config):
        before = Evaluation.run

        def once(self, name, dataset, at):
            evaluations.append(at)
            if at == epoch:
                Evaluation.run = before
                raise Killed
            return before(self, name, dataset, at)

        Evaluation.run = once

    with pytest.raises(Killed):
        run({**made, "startup_callback": callback})


# A threshold at which each missing score changes the learning rate.
NEWBOB = {"learning_rate_file": None, "newbob_relative_error_threshold": -0.5, "num_epochs": 5}


def test_a_score_that_was_not_computed_any_more(tmp_path):
    """Killed between checkpoint and scores, and without a learning-rate file."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = run(options(whole, **NEWBOB))
    killed_in_evaluation(parts, 3, options(parts, **NEWBOB))
    second = run(options(parts, **NEWBOB))
    assert "Last epoch model not yet evaluated on dev. Doing that now." in second
    assert same(model(whole, 5), model(parts, 5))
    starts = [line for line in first if line.startswith("start epoch")]
    assert starts[3:] == [line for line in second if line.startswith("start epoch")]
    assert len(set(starts[2:])) == 3


@pytest.mark.parametrize("lacking", [".pt", ".index"])
@pytest.mark.parametrize("epochs", [2, 3])
def test_an_epoch_with_some_of_its_formats(tmp_path, lacking, epochs):
    """Killed between the files of an epoch, be it the last one or not."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=epochs, checkpoint_format="both"))
    run(options(parts, num_epochs=2, checkpoint_format="both"))
    os.remove(parts / f"model.002{lacking}")
    lines = run(options(parts, num_epochs=epochs, checkpoint_format="both"))
    assert any("model.002 is missing in the form" in line for line in lines)
    assert sorted(os.listdir(whole)) == sorted(os.listdir(parts))
    assert same(model(whole, epochs), model(parts, epochs)) and same(model(whole, 2), model(parts, 2))
    content = torch.load(parts / "model.002.pt", weights_only=True)
    assert (content["epoch"], content["step"]) == (2, int(content["model"]["global_step"]))


def test_steps_of_epochs():
    class Control:
        epochs = {1: Record(0.1, meta={"epoch_num_train_steps": 5}), 3: Record(0.1)}

    assert steps_of_epochs(Control, 3, 12) == [5, 3, 4]
    assert steps_of_epochs(Control, 1, 5) == [5]
    assert steps_of_epochs(Control, 2, 3) == [1, 2]  # less than is recorded
    assert steps_of_epochs(Control, 0, 0) == []


def rates_of(lines):
    return [line.split("learning rate ")[1] for line in lines if line.startswith("start epoch")]


@pytest.mark.parametrize("changes", [
    {"lr_scheduler": {"class": "ExponentialLR", "gamma": 0.5}},
    {"lr_scheduler": {"class": "StepLR", "step_size": 3, "gamma": 0.5, "interval": "step"}},
    {
        "lr_scheduler": {"class": "StepLR", "step_size": 2, "gamma": 0.5, "interval": "step"},
        "accum_grad_multiple_step": 2,
    },
    {"lr_scheduler": {"class": "ReduceLROnPlateau", "patience": 0, "threshold": 10.0}},
    {"lr_scheduler": {"class": "ExponentialLR", "gamma": 0.5, "start_epoch": 2}},
])  # fmt: skip
@pytest.mark.parametrize("way", ["start_epoch", "reset", "load"])
def test_schedules_without_the_optimizers_state(tmp_path, changes, way):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"learning_rate_control": None, "optimizer": {"class": "sgd"}, **changes}
    expected = rates_of(run(options(whole, num_epochs=5, **changes)))
    run(options(parts, num_epochs=3, **changes))
    if way == "start_epoch":
        os.remove(parts / "model.003.opt.pt")
        more = {"start_epoch": 4}
    elif way == "reset":
        more = {"reset_optimizer_on_restart": True}
    else:
        more = {"load": str(parts / "model.003"), "model": str(tmp_path / "new" / "model")}
    lines = run(options(parts, num_epochs=5, **changes, **more))
    assert rates_of(lines) == expected[3:]


def test_num_epochs_below_what_is_trained(tmp_path):
    run(options(tmp_path, num_epochs=3))
    lines = run(options(tmp_path, num_epochs=2))
    assert "No epochs to train, start_epoch: 3, final_epoch: 2" in lines
    text = (
        f"note: `num_epochs` is 2, but {str(tmp_path / 'model')!r} is trained up to epoch 3 already; nothing is changed"
    )
    assert text in lines


def test_num_epochs_below_what_can_be_continued(tmp_path):
    """Only the last epochs have the optimizer's state."""
    run(options(tmp_path, num_epochs=5))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("model*")}
    lines = run(options(tmp_path, num_epochs=2))
    assert "No epochs to train, start_epoch: 3, final_epoch: 2" in lines
    assert any("is trained up to epoch 5 already" in line for line in lines)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("model*")} == before
    os.remove(tmp_path / "model.002.pt")
    with pytest.raises(ConfigError, match="num_epochs: is 2, but .*model' is trained up to epoch 5 already"):
        run(options(tmp_path, num_epochs=2))


@pytest.mark.parametrize("task", ["eval", "forward", "search"])
def test_no_model(tmp_path, task):
    made = options(tmp_path, task=task, output_file=str(tmp_path / "out"), eval=dataset(2, 1), search_data="dev")
    made |= {"search_output_file": str(tmp_path / "text")}
    epoch = {"load_epoch": 2} if task == "eval" else {}
    with pytest.raises(ConfigError) as error:
        run({**made, **epoch})
    where = f"looked for {tmp_path}/model.NNN.pt or {tmp_path}/model.NNN.index, up to epoch 3"
    assert f"{where}; no model in the folder {str(tmp_path)!r}" in str(error.value)
    run(options(tmp_path, model=str(tmp_path / "mode"), num_epochs=1))
    with pytest.raises(ConfigError, match="up to epoch 3; in '.*' there is mode.001"):
        run({**made, **epoch})
    with pytest.raises(
        ConfigError, match="load: must name a model file, but '.*nothing.007' does not exist; in '.*' there is"
    ):
        run({**made, "load": str(tmp_path / "nothing.007"), **({"load_epoch": 7} if task == "eval" else {})})
    if task != "eval":
        with pytest.raises(ConfigError, match="`model`, their base name, is not set"):
            run({**made, "model": None})


def test_missing_parameters(tmp_path):
    run(options(tmp_path, num_epochs=1))
    net = network()
    net["g"], net["output"] = net.pop("h"), {**net["output"], "from": "g"}
    with pytest.raises(
        ConfigError, match=r"lacks 2 of 4 parameters: g/W \(4, 5\), g/b \(5,\); it has instead: h/W \(4, 5\), h/b"
    ):
        run(options(tmp_path, num_epochs=2, network=net))


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))


def test_torch_models_too(tmp_path):
    changes = {**NEWBOB, "learning_rate_control": "newbob"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(small_models.options(whole, lambda **_: Linear(), **changes))
    killed_in_evaluation(parts, 3, small_models.options(parts, lambda **_: Linear(), **changes))
    run(small_models.options(parts, lambda **_: Linear(), **changes))
    assert same(model(whole, 5), model(parts, 5))


@pytest.mark.parametrize("count", range(5))
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, count):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=2))
    run(options(parts, num_epochs=1))
    before = (parts / "model.001.pt").read_bytes()
    written = []

    def full(_):
        written.append(1)
        if len(written) > count:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises((OSError, ConfigError), match=r"No space left on device: '.*(rates|model.002(.opt)?.pt)'"):
            run(options(parts, num_epochs=2))
    assert (parts / "model.001.pt").read_bytes() == before and not list(parts.glob("*tmp"))
    run(options(parts, num_epochs=2))
    assert same(model(whole, 2), model(parts, 2))
