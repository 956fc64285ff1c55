"""`use_last_best_model`: the epoch to go back to."""

import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.schedule import LastBest, LearningRateControl


def choose(option, scores: list[float]) -> int | None:
    control = LearningRateControl.from_config(Config({}), Log.silent())
    for epoch, score in enumerate(scores, start=1):
        control.set_scores(epoch, {"dev_score": score})
    return LastBest.from_config(Config({"use_last_best_model": option})).epoch(control, len(scores) + 1)


@pytest.mark.parametrize("option, scores, epoch", [
    (True, [], None),
    (True, [3.0, 1.0, 2.0], 2),
    (True, [3.0, 2.0, 1.0], None),  # the last one is the best
    (True, [2.0, 2.0], None),  # no strict improvement
    (True, [1.0, 1.0, 2.0], 1),
    ({"modulo": 2}, [1.0, 2.0, 3.0], 1),
    ({"modulo": 3}, [1.0, 2.0, 3.0], None),
    ({"modulo": 3, "filter_score": 2.5}, [1.0, 2.0, 3.0], 1),
    ({"filter_score": 0.5}, [1.0, 2.0, 3.0], None),
    ({"first_epoch": 2}, [1.0, 2.0, 3.0], 2),
    ({"only_last_epochs": 2}, [1.0, 2.0, 3.0], 2),
    ({"only_last_epochs": 3}, [1.0, 2.0, 2.5, 3.0], 2),
    ({"only_last_n": 2}, [1.0, 2.0, 3.0], 2),
    ({"min_score_dist": 0.6}, [2.5, 3.0], None),
    ({"min_score_dist": 0.4}, [2.5, 3.0], 1),
])  # fmt: skip
def test_choice(option, scores: list[float], epoch: int | None):
    assert choose(option, scores) == epoch


def test_off_and_wrong_keys():
    assert LastBest.from_config(Config({})) is None
    assert LastBest.from_config(Config({"use_last_best_model": False})) is None
    with pytest.raises(ConfigError, match='did you mean "modulo"?'):
        LastBest.from_config(Config({"use_last_best_model": {"modul": 2}}))
