"""Tuning the scales of several scores: exact line search against trying all values."""

import ast

import numpy as np
import pytest

from returnn_lite.tools.tune_scales import Recorded, best_value, changes, count, main, tune


def random_seqs(seed, num=20, hyps=7, scores=3):
    rng = np.random.RandomState(seed)
    return [
        Recorded([f"h{k}" for k in range(hyps)], rng.randn(hyps, scores), rng.randint(0, 9, hyps)) for _ in range(num)
    ]


def test_the_steps_of_the_errors_are_those_of_trying():
    seqs, scales = random_seqs(1), np.array([1.0, 0.3, 0.7])
    for value in np.linspace(-2, 3, 41):
        tried = scales.copy()
        tried[1] = value
        known = 0
        for seq in seqs:
            first, steps = changes(seq, scales, 1, -2.0)
            known += first + sum(change for at, change in steps if at < value)
        assert known == count(seqs, tried)


def test_the_best_value_is_that_of_a_fine_grid():
    for seed in range(5):
        seqs, scales = random_seqs(seed), np.array([1.0, 0.5, -0.2])
        value, errors = best_value(seqs, scales, 2, -3.0, 3.0)
        grid = [count(seqs, np.array([1.0, 0.5, x])) for x in np.linspace(-3, 3, 2001)]
        assert errors <= min(grid) and count(seqs, np.array([1.0, 0.5, value])) == errors


def test_tuning_never_gets_worse_and_keeps_the_first():
    seqs = random_seqs(7, num=50)
    start = np.array([1.0, 0.0, 0.0])
    scales, errors = tune(seqs, start, [(0, 5)] * 3)
    assert scales[0] == 1 and errors == count(seqs, scales) < count(seqs, start)
    assert (scales >= 0).all() and (scales <= 5).all()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The second score repairs what the first does not see, from a scale of 1 on; 3 is too much for the last one."""
    monkeypatch.chdir(tmp_path)
    texts = {"a": ["x y", "x z"], "b": ["u", "u v"], "c": ["p", "q"]}
    first = {"a": [-1.0, -2.0], "b": [-1.0, -2.0], "c": [-1.0, -4.0]}
    second = {"a": [-5.0, -4.0], "b": [-3.0, -2.0], "c": [-2.0, -1.0]}
    for name, scores in (("first", first), ("second", second)):
        entries = {tag: list(zip(scores[tag], texts[tag], strict=True)) for tag in texts}
        (tmp_path / name).write_text(repr(entries))
    (tmp_path / "refs").write_text(repr({"a": "x z", "b": "u v", "c": "p"}))
    return tmp_path


def test_from_files(files, capsys):
    arguments = ["--scores", "first", "second", "--refs", "refs", "--range", "0", "4"]
    assert main([*arguments, "--out", "best"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "first alone: 40.00 %", "with all: 0.00 %", "best of the lists: 0.00 %", "first 1", "second 2",
    ]  # fmt: skip
    assert ast.literal_eval((files / "best").read_text()) == {"a": "x z", "b": "u v", "c": "p"}
    assert main([*arguments, "--scales", "1", "3.5"]) == 0
    assert "with all: 20.00 %" in capsys.readouterr().out
    assert main(["--scores", "first", "--refs", "refs", "--length"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("length ")


@pytest.mark.parametrize("arguments, message", [
    (["--scores", "first", "other", "--refs", "refs"], '--scores: other["a"]: must have the hypotheses of first'),
    (["--scores", "refs", "--refs", "refs"], '--scores: refs["a"]: must be a list [(score, text), …], but is x z'),
    (["--scores", "bad", "--refs", "refs"], "must have entries (score, text), but has ('x', 1)"),
    (["--scores", "first", "--refs", "few"], '--refs: no reference for "b"'),
    (["--scores", "first", "--refs", "refs", "--range", "2", "1"], "--range: must be two rising numbers"),
    (["--scores", "first", "--refs", "refs", "--scales", "1", "2"], "--scales: must be 1 numbers, but got 2"),
    (["--scores", "none", "--refs", "refs"], "none"),
])  # fmt: skip
def test_errors(files, arguments, message, capsys):
    (files / "other").write_text("{'a': [(1.0, 'x z')], 'b': [], 'c': []}".replace("[]", "[(0.0, 'x')]"))
    (files / "bad").write_text("{'a': [('x', 1)]}")
    (files / "few").write_text("{'a': 'x z'}")
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
