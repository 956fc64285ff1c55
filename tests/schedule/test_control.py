"""The learning rate control: four controls, error keys, records, the file, the use in a run."""

import math

import numpy as np
import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import LearningRateControl
from returnn_lite.schedule.scores import choose_error_key, flatten

SCORES = [3.0, 2.5, 2.2, 2.1, 2.09, 2.095, 2.05, 2.045, 2.0449, 1.9, 1.91, 1.92]


def make(**config) -> LearningRateControl:
    return LearningRateControl.from_config(Config({"learning_rate": 0.001} | config), Log.silent())


def rates(control: LearningRateControl, scores=SCORES, first: int = 1) -> list[float]:
    """The learning rates of the epochs with these dev scores, and of the one after."""
    found = []
    for epoch, score in enumerate(scores, start=first):
        found.append(control.get(epoch))
        control.set_scores(epoch, {"train_score": score - 0.1})
        control.set_scores(epoch, {"dev_score": score})
    return [*found, control.get(first + len(scores))]


def times(*halvings: int) -> list[float]:
    return [0.001 * 0.5**n for n in halvings]


@pytest.mark.parametrize("config, expected", [
    ({}, [0.001] * 13),
    ({"learning_rate_control": None}, [0.001] * 13),
    ({"learning_rate_control": "newbob"}, times(0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6)),
    ({"learning_rate_control": "newbob_rel"}, times(0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6)),
    ({"learning_rate_control": "newbob_relative", "newbob_learning_rate_decay": None}, [0.001] * 13),
    ({"learning_rate_control": "newbob_abs"}, times(0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5)),
    ({"learning_rate_control": "newbob", "learning_rates": [2e-4, 6e-4, 1e-3]},
     [2e-4, 6e-4, *times(0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6)]),
    ({"learning_rate_control": "newbob_multi_epoch", "newbob_multi_num_epochs": 2, "newbob_multi_update_interval": 1,
      "newbob_relative_error_threshold": -0.02}, times(0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 5)),
])  # fmt: skip
def test_controls(config: dict, expected: list[float]):
    assert rates(make(**config)) == pytest.approx(expected, rel=1e-12)


def test_multi_epoch_decides_in_its_interval_only():
    control = make(learning_rate_control="newbob_multi_epoch", newbob_multi_num_epochs=3)
    assert rates(control, [2.0] * 8) == times(0, 0, 0, 1, 1, 1, 2, 2, 2)


def test_growth():
    control = make(learning_rate_control="newbob", learning_rate_growth=2.0, learning_rate_decay=lambda rate: 1e-5)
    assert rates(control, [3.0, 2.0, 2.0]) == [0.001, 0.001, 0.002, 1e-5]


def test_names_of_decay_and_growth():
    control = make(newbob_learning_rate_decay=0.7, learning_rate_decay=0.6, newbob_learning_rate_growth=1.5)
    assert (control.options.decay(1.0), control.options.growth(1.0)) == (0.6, 1.5)


def test_minimum_may_raise():
    control = make(learning_rate_control="newbob", min_learning_rate=0.004)
    assert rates(control, [2.0, 2.0]) == [0.001, 0.001, 0.004]


def test_relative_to_learning_rate():
    config = {"learning_rate_control": "newbob", "learning_rates": {1: 0.001, 2: 0.0005, 3: 0.0001}}
    related = make(**config, learning_rate_control_relative_error_relative_lr=True)
    plain = make(**config)
    scores = [2.0, 1.99, 1.985]  # the last change is -0.0025 of the score, and -0.025 relative to a tenth of the rate
    assert rates(plain, scores)[-1] == 0.00005 and rates(related, scores)[-1] == 0.0001


def test_division_by_old():
    config = {"learning_rate_control": "newbob", "newbob_relative_error_threshold": -0.6}
    assert rates(make(**config), [2.0, 1.0])[-1] == 0.001  # (1 - 2) / 1 = -1
    assert rates(make(**config, newbob_relative_error_div_by_old=True), [2.0, 1.0])[-1] == 0.0005  # (1 - 2) / 2


def test_minimum_number_of_epochs():
    control = make(learning_rate_control="newbob", learning_rate_control_min_num_epochs_per_new_lr=3)
    assert rates(control, [2.0] * 6) == times(0, 0, 0, 1, 1, 1, 2)


def test_missing_and_nan_scores():
    control = make(learning_rate_control="newbob")
    assert rates(control, [2.0, math.nan, 2.0]) == [0.001] * 4
    control = make(learning_rate_control="newbob")
    control.set_scores(1, {"dev_score": 2.0})
    control.set_scores(2, {"train_score": 2.0})  # another key
    assert control.get(3) == 0.001
    assert make(learning_rate_control="newbob", newbob_relative_error_threshold=0.1).relative_error(1, 2) is None


def test_zero_scores():
    control = make(learning_rate_control="newbob")
    assert rates(control, [1.0, 0.0, 0.0, 1.0]) == times(0, 0, 0, 0, 1)


# --- options ----------------------------------------------------------------------------------------------------------


def test_unknown_control():
    with pytest.raises(ConfigError, match='unknown control "newbobb"; did you mean "newbob"?'):
        make(learning_rate_control="newbobb")


@pytest.mark.parametrize("value, expected", [
    ([0.1, 1], {1: 0.1, 2: 1.0}),
    ((0.1,), {1: 0.1}),
    ({3: 0.1}, {3: 0.1}),
    ({"3": "0.1"}, {3: 0.1}),
    ("{1: 0.3, 3: 0.1}", {1: 0.3, 3: 0.1}),
    (None, {}),
])  # fmt: skip
def test_learning_rates(value, expected: dict):
    control = make(learning_rates=value)
    assert {epoch: record.learning_rate for epoch, record in control.epochs.items()} == expected


@pytest.mark.parametrize("value, message", [
    ("[0.1]", "must give a dict"),
    ("{1: x}", "cannot evaluate"),
    (0.1, "must be a list, or a dict"),
    ([None], "must hold numbers"),
    ({"a": 0.1}, "must hold numbers"),
])  # fmt: skip
def test_wrong_learning_rates(value, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        make(learning_rates=value)
    assert caught.value.path == "learning_rates"


@pytest.mark.parametrize("text, expected", [("0.1,0.2", {1: 0.1, 2: 0.2}), ("{2:0.5,4:0.1}", {2: 0.5, 4: 0.1})])
def test_line_based(text: str, expected: dict):
    config = Config()
    lines = {"learning_rate": "0.5", "learning_rates": text, "newbob_learning_rate_decay": "0.7",
             "newbob_multi_num_epochs": "3", "learning_rate_control": "newbob_multi_epoch",
             "learning_rate_control_error_measure": "dev_error,dev_score"}  # fmt: skip
    for key, line in lines.items():
        config.set_text(key, line)
    control = LearningRateControl.from_config(config, Log.silent())
    assert {epoch: record.learning_rate for epoch, record in control.epochs.items()} == expected
    options = control.options
    assert (options.learning_rate, options.decay(1.0), options.multi_epochs, options.multi_interval) == (0.5, 0.7, 3, 3)
    assert options.error_measures == ["dev_error", "dev_score"]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores, flat", [
    ({"dev_score": 1.0}, {"dev_score": 1.0}),
    ({"dev_score": {"cost:output": 1.0}}, {"dev_score": 1.0}),
    ({"dev_score": {"cost:ctc": 1.0, "cost:output": 2}}, {"dev_score_ctc": 1.0, "dev_score_output": 2.0}),
    ({"dev_score": {"cost:out": 1.0, "cost:out:exp": 2.0}}, {"dev_score_out": 1.0, "dev_score_out:exp": 2.0}),
    ({"dev_error": {}}, {}),
])  # fmt: skip
def test_flat_scores(scores: dict, flat: dict):
    assert flatten(scores) == flat


def test_scores_must_be_numbers():
    with pytest.raises(TypeError, match="`dev_score` must be a number, but is 'x' instead"):
        flatten({"dev_score": "x"})


@pytest.mark.parametrize("keys, measures, expected", [
    ([], [], None),
    (["old_format_score"], ["dev_error"], "old_format_score"),
    (["dev_score", "dev_error"], [], "dev_score"),
    (["dev_score", "dev_error"], ["dev_error"], "dev_error"),
    (["dev_score", "dev_error_output"], ["dev_error"], "dev_error_output"),
    (["dev_score", "dev_error"], ["missing", "dev_error"], "dev_error"),
    (["dev_score", "dev_error"], ["missing"], "dev_score"),
    (["dev_score_output", "dev_score_ctc"], [], "dev_score_output"),
    (["dev_score_output/output_prob", "dev_score_output/a", "dev_error"], [], "dev_score_output/output_prob"),
    (["dev_score_output/output", "dev_score_output/output_x"], [], "dev_score_output/output"),
    (["dev_score_output/outputs", "dev_score_output/b"], [], "dev_score_output/b"),
    (["dev_score_b", "dev_score_a", "dev_loss_x", "dev_error_z", "train_score"], [], "dev_error_z"),
    (["train_score_output", "eval_score"], [], "train_score_output"),
    (["train_error", "eval_score"], [], "eval_score"),
])  # fmt: skip
def test_error_key(keys: list[str], measures: list[str], expected: str | None):
    assert choose_error_key(dict.fromkeys(keys, 1.0), measures) == expected


def test_the_chosen_key_is_logged_in_epoch_1(capsys):
    log = Log.from_config(Config({"log_verbosity": 4}))
    config = Config({"learning_rate_control_error_measure": "dev_wer"})
    control = LearningRateControl.from_config(config, log)
    control.set_scores(1, {"dev_score": 2.0, "dev_error": 0.5})
    control.set_scores(2, {"dev_score": 2.0})
    assert capsys.readouterr().out.splitlines() == [
        "Learning-rate-control: no file specified, not saving history (no proper restart possible)",
        "Learning-rate-control: error key 'dev_score' from {'dev_score': 2.0, 'dev_error': 0.5}",
    ]


# --- file -------------------------------------------------------------------------------------------------------------


def test_restart_from_the_file(tmp_path, capsys):
    file = str(tmp_path / "out" / "rates")
    config = {"learning_rate_control": "newbob", "learning_rate_file": file}
    whole = make(**config)
    expected = rates(whole)
    first = make(**config)
    rates(first, SCORES[:5])
    first.save()
    config["log_verbosity"] = 4
    again = LearningRateControl.from_config(Config({"learning_rate": 0.001} | config), Log.from_config(Config(config)))
    assert rates(again, SCORES[5:], first=6) == expected[5:]
    assert again.text() == whole.text()
    assert f"Learning-rate-control: loading file {file}\n" in capsys.readouterr().out


def test_the_file_wins_over_the_list(tmp_path):
    file = tmp_path / "rates"
    file.write_text("{1: EpochData(learningRate=0.5, error={}), 2: EpochData(learningRate=0.0, error={})}")
    control = make(learning_rate_file=str(file), learning_rates=[0.1, 0.2, 0.3])
    assert [control.get(epoch) for epoch in (1, 2, 3)] == [0.5, 0.2, 0.3]


def test_gap_and_earlier_epoch(tmp_path):
    file = tmp_path / "rates"
    file.write_text("{5: EpochData(learningRate=0.5, error={'dev_score': 1.0}), "
                    "6: EpochData(learningRate=0.4, error={'dev_score': 1.0})}")  # fmt: skip
    control = make(learning_rate_file=str(file), learning_rate_control="newbob")
    assert (control.get(9), control.get(6), control.get(5), control.get(2)) == (0.2, 0.4, 0.5, 0.001)


def test_nothing_is_saved_in_a_dry_run_or_without_file(tmp_path):
    file = tmp_path / "rates"
    control = make(learning_rate_file=str(file), dry_run=True)
    control.get(1)
    control.save()
    assert not file.exists()
    make().save()


def test_meta_entries():
    control = make()
    control.set_meta(1, {"effective_learning_rate": np.float32(0.01), "global_train_step": 0})
    control.set_scores(1, {"dev_score": np.float64(1.5)})
    assert control.text() == (
        "{\n1: EpochData(learningRate=0.001, error={\n':meta:effective_learning_rate': 0.01,\n"
        "':meta:global_train_step': 0,\n'dev_score': 1.5,\n}),\n}\n"
    )


def test_broken_file_is_a_config_error(tmp_path):
    file = tmp_path / "rates"
    file.write_text("{1: EpochData(learningRate=0.1, error={'dev_score': 1.0}")
    with pytest.raises(ConfigError, match=str(file)):
        make(learning_rate_file=str(file))


# --- use in a run -----------------------------------------------------------------------------------------------------


def test_pretraining_epochs():
    control = make(pretrain_learning_rate=0.5, learning_rates={1: 0.1, 3: 0.2, 4: 0.3}, learning_rate_control="newbob")
    assert [control.for_epoch(epoch, pretrain_epochs=2) for epoch in (1, 2, 3, 4)] == [0.5, 0.5, 0.001, 0.3]
    assert [control.epochs[epoch].learning_rate for epoch in (1, 2, 3, 4)] == [0.1, 0.5, 0.2, 0.3]
    assert make().for_epoch(1, pretrain_epochs=2) == 0.001
    assert make(learning_rates=[0.1, 0.2]).for_epoch(1) == 0.1


def test_control_also_in_pretraining_epochs():
    control = make(pretrain_learning_rate=0.5, learning_rates=[0.1, 0.2, 0.3], use_learning_rate_control_always=True)
    assert [control.for_epoch(epoch, pretrain_epochs=2) for epoch in (1, 2, 3)] == [0.1, 0.2, 0.3]


def test_override(capsys):
    log = Log.from_config(Config({}))
    control = LearningRateControl.from_config(Config({"learning_rate": 0.1}), log)
    control.get(1)
    control.override(1, 0.5)
    control.override(2, 0.25)
    assert (control.get(1), control.get(2), control.get(3)) == (0.5, 0.25, 0.25)
    assert capsys.readouterr().out == (
        "Overwrite learning rate for epoch 1: 0.1 -> 0.5\nOverwrite learning rate for epoch 2: None -> 0.25\n"
    )
    with pytest.raises(ConfigError, match="use_learning_rate_control_always"):
        control.override(3, 0.1, pretrain_epochs=2)
    make(use_learning_rate_control_always=True).override(3, 0.1, pretrain_epochs=2)
