"""Scores, log lines and the text of result files."""

import math

import numpy as np
import pytest

from returnn_lite.engine import report
from returnn_lite.engine.log_form import LayerForm, Pass, TorchForm
from returnn_lite.engine.progress import Progress
from returnn_lite.engine.tasks.labels import vocab_option
from returnn_lite.engine.tasks.serialize import better_repr
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from tests.engine import torch_models
from tests.engine.helpers import Lines, dataset, run


def scores(steps, **options):
    made = report.EpochScores(**options)
    columns = [("cost", "a"), ("error", "a"), ("inv_norm", "a"), ("loss", "")]
    shown = [made.add(columns, np.array(step, "float32")) for step in steps]
    return shown, made.means()


def test_scores_are_float32_sums():
    """Recorded numbers: 26 of 28, 24 of 30, 18 of 21 frames wrong; 6 of 7 and 4 of 7."""
    shown, means = scores([(40, 26, 28, 41), (30, 24, 30, 31), (20, 18, 21, 21)])
    assert [str(s["error:a"]) for s in shown] == ["0.92857146", "0.8000001", "0.85714287"]
    assert means["error:a"] == 0.8607594966888428
    assert scores([(1, 6, 7, 1), (1, 4, 7, 1)])[1]["error:a"] == 0.7142857909202576
    assert str(shown[0]["loss"]) == "41.0"


def test_exponential_scores():
    shown, means = scores([(math.log(2) * 4, 0, 4, 0), (math.log(8) * 4, 0, 4, 0)], exp=True)
    assert shown[0]["cost:a:exp"] == pytest.approx(2) and means["cost:a:exp"] == pytest.approx(4)


def test_texts():
    means = {"cost:b": 2.0, "cost:a": 1.5, "cost:a:exp": 4.5, "error:b": 0.5}
    assert report.epoch_line("epoch 3", means, 3661) == "epoch 3 score: a 1.5 exp 4.5 b 2.0 error: 0.5 elapsed: 1:01:01"
    assert (
        report.eval_line({"dev": {"cost:x": 1.0}, "eval": {}})
        == "dev: score 1.0 error None eval: score None error None"
    )
    assert report.record_entries("dev", means) == {
        "dev_score": {"cost:b": 2.0, "cost:a": 1.5, "cost:a:exp": 4.5},
        "dev_error": {"error:b": 0.5},
    }


def test_step_lines_can_be_thinned():
    target = Lines()
    progress = Progress(LayerForm(), Pass("train", 1), Log([target]), interval=2)
    for step in range(4):
        progress.step_line(step, {"b": np.float32(2), "a": np.float32(0.1)}, {}, 0.5)
    assert [line.split(",")[:4] for line in target.lines] == [
        ["train epoch 1", f" step {step}", " a 0.1", " b 2.0"] for step in (0, 2)
    ]


def test_words_for_models_written_in_torch():
    form, what = TorchForm(), Pass("train", 3, num_seqs=13)
    means = {"cost:b": 2.0, "cost:a": 1.5e-5, "error:c": 12345.678, "cost:d": 0.0, "cost:d:exp": math.inf}
    texts = "b 2.000 a 1.500e-05 c 1.235e+04 d 0.000e+00 d:exp inf"
    assert form.trained(3, means, 1.0) == [(3, f"Epoch 3: Total train loss: {texts}")]
    assert form.evaluated(3, {"dev": {"cost:b": 2.0}}) == [(1, "Epoch 3 evaluation: dev: 2.000")]
    assert form.evaluated(3, {}) == [(1, "Epoch 3 evaluation: (No evaluations.)")]
    assert form.pass_begins(what) == [(5, "ep 3 train num_seqs: 13")]
    assert form.pass_begins(Pass("eval", 3, "dev")) == [(3, "Evaluating dataset 'dev'")]
    assert form.entries("dev", {"cost:a": 1.0, "grad_norm:p2": 2.0}) == {
        "dev_loss_a": 1.0,
        "dev_loss_grad_norm:p2": 2.0,
    }
    assert form.step_items(what, {"cost:a": 1.0, "loss": 3.0}, {"num_seqs": 2}) == ["a 1.000", "num_seqs 2"]


def test_axes_without_a_name_in_the_log(tmp_path):
    lines = run(torch_models.options(tmp_path, num_epochs=1, log_batch_size=True))
    text = "max_size:time:var-unk:data 8, sum_size:time:var-unk:data "
    assert any(text in line for line in lines if line.startswith("ep 1 train, step "))
    assert not any(text in line for line in lines if line.startswith("ep 1 dev eval, step "))
    task = {"task": "forward", "eval": dataset(14, 1), "output_file": str(tmp_path / "out.hdf"), "num_epochs": 1}
    lines = run(torch_models.options(tmp_path, log_batch_size=True, **task))
    assert any(text in line for line in lines if line.startswith("ep 1 eval forward, step "))


def test_better_repr():
    assert better_repr({"b": 1, "a": [np.float32(0.1), float("nan")]}) == "{'a': [0.1, float('nan')], 'b': 1}"
    long = {"score": {"cost:output": 0.123456789, "cost:aux": 0.123456789}}
    assert better_repr(long) == "{\n'score': {\n'cost:aux': 0.123456789,\n'cost:output': 0.123456789,\n},\n}"


def test_vocabularies_of_data_keys(tmp_path):
    assert vocab_option(None, "x") is None
    assert vocab_option({"class": "CharacterTargets", "labels": ["a", "b"]}, "x").get_seq_labels([0, 1]) == "ab"
    assert vocab_option({"labels": ["th@@", "is", "</s>"]}, "x").get_seq_labels([0, 1]) == "th@@ is"
    with pytest.raises(ConfigError, match=r'extern_data."x"...vocab".: vocab_file: file .* does not exist'):
        vocab_option({"vocab_file": str(tmp_path / "none")}, "x")


@pytest.mark.parametrize("elapsed, wait, hint", [(100, 11, True), (100, 9, False), (20, 19, False)])
def test_slow_data_gets_a_hint(elapsed, wait, hint):
    target = Lines()
    progress = Progress(LayerForm(), Pass("train", 1), Log([target]))
    progress.start -= elapsed
    progress.finish(wait)
    assert target.lines[0].startswith("train epoch 1, finished after 0 steps, ")
    assert target.lines[0].endswith(f"({1 - wait / elapsed:.1%} computing time)")
    assert len(target.lines) == 1 + hint
    if hint:
        assert target.lines[1].startswith("train epoch 1: 11 of 100 seconds were spent waiting for data; it may help")
