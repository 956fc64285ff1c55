"""Which checkpoints stay."""

import io
import math

import pytest

from returnn_lite.engine.checkpoints.cleanup import (
    best_epochs,
    cleanup_old_models,
    cleanup_options,
    default_keep_pattern,
    epochs_to_keep,
)
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from tests.engine.helpers import Lines


def improving(epochs):
    return {e: {"dev_score": 3 - e / 10, "dev_error": 1 - e / 100} for e in epochs}


def test_default_pattern():
    assert default_keep_pattern(10) == {4, 5, 8, 10}
    assert default_keep_pattern(40) == {5, 10, 20, 40}
    assert default_keep_pattern(100) == {10, 20, 40, 80}
    assert default_keep_pattern(250) == {20, 40, 80, 160}
    assert default_keep_pattern(320) == {20, 40, 80, 160, 320}


EXAMPLES = [
    (range(1, 11), dict(keep_last_n=2, keep_best_n=0, keep=None), [4, 5, 8, 9, 10]),
    (range(1, 13), dict(keep_last_n=1, keep_best_n=1, keep=[]), [12]),
    (range(1, 13), dict(keep_last_n=3, keep_best_n=0, keep=[]), [10, 11, 12]),
    ([1, 2, 4, 5, 6, 9], dict(keep_last_n=1, keep_best_n=2, keep=[2]), [2, 6, 9]),
]


@pytest.mark.parametrize("stored, options, kept", EXAMPLES)
def test_examples(stored, options, kept):
    assert sorted(epochs_to_keep(stored, improving(stored), **options)) == kept


def test_best():
    scores = {1: {"a": 1.0, "same": 2.0}, 2: {"a": 0.5, "same": 2.0}, 3: {"same": 2.0}, 4: {"a": 0.5}}
    assert best_epochs([1, 2, 3, 4], scores, 1) == {2}  # the lower epoch of equal ones
    assert best_epochs([1, 2, 3, 4], scores, 3) == {1, 2, 4}  # 3 counts as the worst value, 1.0, but 1 is lower
    assert best_epochs([1, 2, 3, 4], {}, 3) == set()


def test_nan_is_the_worst():
    scores = {1: {"a": 3.0}, 2: {"a": math.nan}, 3: {"a": 2.0}, 4: {"a": math.nan}}
    assert best_epochs([1, 2, 3, 4], scores, 2) == {1, 3}
    assert best_epochs([2, 4, 3], scores, 1) == {3}
    assert best_epochs([2, 4], scores, 1) == set()


def test_not_yet_evaluated_epochs_stay():
    scores = {**improving(range(1, 9)), 3: {}}
    assert 3 in epochs_to_keep(range(1, 9), scores, keep_last_n=1, keep_best_n=0, keep=[])


def files(folder, epochs):
    made = {}
    for e in epochs:
        base = str(folder / f"m.{e:03d}")
        for suffix in (".pt", ".opt.pt"):
            with open(base + suffix, "wb") as file:
                file.write(b"x" * 1000)
        made[e] = base
    return made


def test_removal(tmp_path):
    target = Lines()
    models = files(tmp_path, range(1, 13))
    options = cleanup_options({"keep_last_n": 1, "keep_best_n": 1, "keep": []})
    cleanup_old_models(models, improving(models), options, Log([target]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.012.opt.pt", "m.012.pt"]
    assert target.lines == [
        "We have stored models for epochs [1, 2, 3, ..., 10, 11, 12] and keep epochs [12].",
        "We will delete the models of epochs [1, 2, 3, ..., 9, 10, 11].",
        "Deleted 21.5KB.",
    ]


def test_too_few_models(tmp_path):
    target = Lines()
    cleanup_old_models(files(tmp_path, [1, 2, 3, 4]), {}, cleanup_options(True), Log([target]))
    assert target.lines == [
        "Only 4 epochs stored so far and keeping last 2 epochs and best 4 epochs, thus not cleaning up any epochs yet."
    ]


def test_question(tmp_path, monkeypatch):
    models = files(tmp_path, range(1, 9))
    options = cleanup_options({"keep_last_n": 1, "keep_best_n": 1, "keep": []})
    monkeypatch.setattr("sys.stdin", io.StringIO("what\nno\n"))
    with pytest.raises(SystemExit):
        cleanup_old_models(models, improving(models), options, Log.silent(), ask=True)
    assert len(list(tmp_path.iterdir())) == 16
    monkeypatch.setattr("sys.stdin", io.StringIO("what\nyes\n"))
    cleanup_old_models(models, improving(models), options, Log.silent(), ask=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_options():
    assert cleanup_options(None) is None and cleanup_options(False) is None
    assert cleanup_options({"keep": [3]}) == {"keep_last_n": 2, "keep_best_n": 4, "keep": [3]}
    with pytest.raises(ConfigError, match='did you mean "keep_best_n"'):
        cleanup_options({"keep_best": 3})
    with pytest.raises(ConfigError, match="must be an int from 1"):
        cleanup_options({"keep_last_n": 0})


def test_options_as_text():
    """As they come from the command line where the config has none."""
    assert cleanup_options("{'keep': [3]}") == {"keep_last_n": 2, "keep_best_n": 4, "keep": [3]}
    with pytest.raises(ConfigError, match='did you mean "keep_last_n"'):
        cleanup_options("{'keep_last': 2}")
    for value in (5, "5", "best", [3]):
        with pytest.raises(ConfigError, match="must be True, False or a dict"):
            cleanup_options(value)
