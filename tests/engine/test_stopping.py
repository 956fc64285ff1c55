"""`early_stopping` and `max_train_time`: trainings that end before their last epoch, in good order."""

import time

import pytest

from returnn_lite.config import Config
from returnn_lite.engine.time_limit import TimeLimit, seconds_of
from returnn_lite.errors import ConfigError
from returnn_lite.schedule.early_stopping import EarlyStopping
from returnn_lite.schedule.history import History
from returnn_lite.schedule.lr_file import Record
from returnn_lite.schedule.options import Options
from tests.engine import helpers, torch_models
from tests.engine.helpers import CONFIG_FILE, rnn, run


def reason(scores, **options):
    history = History(Options.from_config(Config({})), {e: Record(0.1, {"dev_score": s}) for e, s in scores.items()})
    rule = EarlyStopping.from_config(Config({"early_stopping": options}))
    return rule.reason(history, max(scores))


SCORES = dict(enumerate([5.0, 3.0, 3.2, 2.95, 3.1, 3.05], start=1))


@pytest.mark.parametrize(("options", "ends"), [
    ({"patience": 2}, True),
    ({"patience": 3}, False),
    ({"patience": 4, "min_delta": 0.1}, True),
    ({"patience": 4, "min_relative_delta": 0.01}, False),
    ({"patience": 2, "first_epoch": 7}, False),
    ({"patience": 2, "measure": "dev_score"}, True),
])  # fmt: skip
def test_when_it_ends(options, ends):
    assert bool(reason(SCORES, **options)) == ends


def test_what_it_says():
    text = "early_stopping: dev_score was 2.95 in epoch 4, and not better in 2 epochs since"
    assert reason(SCORES, patience=2) == text


@pytest.mark.parametrize("models", [helpers, torch_models], ids=["layers", "torch"])
def test_a_training_ends_early_and_stays_ended(tmp_path, models):
    """Nothing is learnt with this learning rate, but running statistics move."""
    changes = {"num_epochs": 9, "learning_rate": 0.0, "learning_rate_control": None, "save_interval": 5}
    changes["early_stopping"] = {"patience": 2, "min_delta": 0.5}
    lines = run(models.options(tmp_path, **changes))
    assert any(line.startswith("early_stopping: dev_") for line in lines)
    assert "Finished training" in lines[-1] and "epoch 3" in lines[-1]
    assert (tmp_path / "model.003.pt").exists()  # though 3 is none of the epochs to be saved
    again = run(models.options(tmp_path, **changes))
    assert (
        "Finished training" in again[-1] and "epoch 3" in again[-1] and not any(", step 0," in line for line in again)
    )


@pytest.mark.parametrize(("value", "seconds"), [
    (90, 90), (1.5, 1.5), ("90", 90), ("90m", 5400), ("1.5h", 5400), ("2d", 172800), ("1:30", 5400), ("0:01:30", 90),
    ("2-12:00:00", 216000), (None, None), (0, None),
])  # fmt: skip
def test_times(value, seconds):
    assert seconds_of(value) == seconds


@pytest.mark.parametrize("value", ["soon", "-3", "0m", -3, True, [3], "1:2:3"])
def test_no_times(value):
    with pytest.raises(ConfigError, match="max_train_time: must be a time"):
        seconds_of(value)


def test_an_epoch_begins_only_if_it_fits():
    limit = TimeLimit(100.0)
    assert limit.reason(1) == "" and not limit.is_up  # nothing is known of the first one
    limit.took(30.0)
    limit.begin -= 60.0
    assert limit.reason(3) == ""
    limit.begin -= 10.0
    assert limit.reason(4).startswith("max_train_time: 30 of 100 seconds are left, and epoch 4 may take 33")
    limit.begin -= 31.0
    assert limit.is_up and TimeLimit(None).reason(9) == ""


def test_between_epochs_and_on_the_next_start(tmp_path):
    """Each epoch takes half a second at least."""
    changes = {
        "num_epochs": 4,
        "epoch_end": lambda *, dataset_name, **_: time.sleep(0.25 * (dataset_name == "dev") + 0.25),
    }
    lines = run(helpers.options(tmp_path, max_train_time=1.5, **changes))
    assert any(line.startswith("max_train_time: ") and "the next run continues" in line for line in lines)
    done = len(list(tmp_path.glob("model.*.opt.pt")))
    assert 1 <= done <= 2 and not (tmp_path / "model.004.pt").exists()
    run(helpers.options(tmp_path, **changes))
    assert (tmp_path / "model.004.pt").exists()


def test_within_an_epoch(tmp_path):
    """The exit code is 0; what was trained of the epoch does not count."""
    (tmp_path / "train.config").write_text(
        f"{CONFIG_FILE}\nimport time\nmax_seqs = 1\nmax_train_time = 2\nlog_verbosity = 5\n"
        "def dynamic_learning_rate(*, global_train_step, learning_rate, **_):\n"
        "    time.sleep(0.5)\n    return learning_rate\n"
    )
    done = rnn("train.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "max_train_time is over: the current epoch is discarded; the next run repeats it" in done.stdout
    assert not list((tmp_path / "out").glob("model.*"))


@pytest.mark.parametrize(("value", "words"), [
    (3, "must be a dict such as"),
    ({"measure": "dev_score"}, 'must have "patience"'),
    ({"patience": 0}, r'early_stopping\["patience"\]: must be a whole number from 1'),
    ({"patience": 2, "mesure": "x"}, r'early_stopping\["mesure"\]: unknown option; did you mean "measure"'),
    ({"patience": 2, "min_delta": -1}, r'early_stopping\["min_delta"\]'),
    ({"patience": 2, "measure": 3}, r'early_stopping\["measure"\]: must be a key'),
])  # fmt: skip
def test_refused(value, words):
    with pytest.raises(ConfigError, match=words):
        EarlyStopping.from_config(Config({"early_stopping": value}))


def test_no_such_score():
    with pytest.raises(ConfigError, match='unknown score .dev_scor.; did you mean "dev_score"'):
        reason(SCORES, patience=2, measure="dev_scor")
