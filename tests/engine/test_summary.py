"""Scalars for TensorBoard: each step and epoch once, whatever happened in between."""

import glob
import os

import pytest

from tests.engine import helpers
from tests.engine.small_models import mean_loss, options
from tests.engine.test_resume import Killed, Linear, killed_in_evaluation

pytest.importorskip("tensorboard")
OPTIONS = {"tensorboard_opts": {"log_every_n_train_steps": 1}, "num_epochs": 4}


def scalars(folder):
    """{tag: steps} of all folders, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted({os.path.dirname(file) for file in glob.glob(f"{folder}/**/events*", recursive=True)}):
        events = EventAccumulator(path)
        events.Reload()
        found.update({tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]})
    return found


def train(folder, steps, *, killed_at=None, **changes):
    """A training; `killed_at`: counted over all its training steps."""
    done = [0]

    def train_step(*, model, **more):
        done[0] += model.training
        if killed_at and model.training and done[0] == killed_at:
            raise Killed
        mean_loss(model=model, **more)

    made = options(folder, lambda **_: Linear(), train_step, steps=steps, tf_log_dir=str(folder / "board"), **OPTIONS)
    helpers.run({**made, **changes})


def complete(folder, steps, **less):
    found, epochs = scalars(folder / "board"), [1, 2, 3, 4]
    assert found["train/loss"] == found["train/learning_rate"] == list(range(4 * steps))
    assert found["epoch_train/cost:l"] == found["epoch_dev/cost:l"] == found["epoch/learning_rate"] == epochs


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("at", [1, 2.5, 3, 4])
def test_a_restart_in_training(tmp_path, steps, at):
    with pytest.raises(Killed):
        train(tmp_path, steps, killed_at=max(int(at * steps), 1))
    train(tmp_path, steps)
    complete(tmp_path, steps)


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("rates", ["file", None])
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_restart_in_evaluation(tmp_path, steps, rates, epoch):
    changes = {"learning_rate_file": rates and str(tmp_path / "rates")}
    made = options(tmp_path, lambda **_: Linear(), steps=steps, tf_log_dir=str(tmp_path / "board"), **OPTIONS)
    killed_in_evaluation(tmp_path, epoch, {**made, **changes})
    train(tmp_path, steps, **changes)
    complete(tmp_path, steps)


def test_going_back_and_beginning_anew(tmp_path):
    train(tmp_path, 3)
    train(tmp_path, 3, start_epoch=3)
    complete(tmp_path, 3)
    train(tmp_path, 3, start_epoch=1)
    complete(tmp_path, 3)


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "board").write_text("no folder")
    made = options(tmp_path, lambda **_: Linear(), tf_log_dir=str(tmp_path / "board"), **OPTIONS)
    lines = helpers.run(made)
    found = [line for line in lines if line.startswith("WARNING: tensorboard_opts: no further scalars")]
    assert len(found) == 1 and found[0].endswith("/board'") and "File exists" in found[0]
    assert (tmp_path / "model.004.pt").exists()
