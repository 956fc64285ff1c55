"""Schedules: values, what a config may write, errors, memory."""

import itertools

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.optim.schedules import SCHEDULES, Constant, make_schedule


def values(value, steps: int = 6, **scores) -> list[float]:
    made, score, found = make_schedule(value, "x"), None, []
    for step in range(steps):
        score = (step, scores[f"at{step}"]) if f"at{step}" in scores else score
        found.append(made(step, score))
    return found


@pytest.mark.parametrize("value, expected", [
    (0.5, [0.5] * 6),
    ([1, 2, 4], [1, 2, 4, 4, 4, 4]),
    ((i * i for i in range(4)), [0, 1, 4, 9, 9, 9]),
    (lambda step: 1 / (1 + step), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]),
    ({"@schedules": "constant.v1", "rate": 2}, [2] * 6),
    ({"@schedules": "decaying.v1", "base_rate": 1.0, "decay": 1.0, "t": 1}, [1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 7]),
    ({"@schedules": "compounding", "start": 1.0, "stop": 5.0, "compound": 2.0}, [1, 2, 4, 5, 5, 5]),
    ({"@schedules": "compounding", "start": 1.0, "stop": 0.2, "compound": 0.5}, [1, 0.5, 0.25, 0.2, 0.2, 0.2]),
    ({"@schedules": "warmup_linear.v1", "initial_rate": 1.0, "warmup_steps": 2, "total_steps": 5},
     [0, 0.5, 1, 2 / 3, 1 / 3, 0]),
    ({"@schedules": "cyclic_triangular.v1", "min_lr": 0.0, "max_lr": 1.0, "period": 2}, [0.5, 1, 0.5, 0, 0.5, 1]),
    ({"@schedules": "constant_then.v1", "rate": 9, "steps": 2, "schedule": [1, 2, 3, 4]}, [9, 9, 3, 4, 4, 4]),
    ({"class": "StepLR", "step_size": 2, "gamma": 0.5, "start": 8}, [8, 8, 4, 4, 2, 2]),
])  # fmt: skip
def test_values(value, expected: list[float]):
    assert values(value) == pytest.approx(expected)


def test_slanted_triangle():
    found = values({"@schedules": "slanted_triangular.v1", "max_rate": 1.0, "num_steps": 10, "cut_frac": 0.2}, 10)
    assert max(found) == found[1] == 1.0 and found[2:] == sorted(found[2:], reverse=True)
    assert found[9] == pytest.approx(1 / 32)


def test_plateau():
    plateau = {"@schedules": "plateau.v1", "max_patience": 2, "scale": 0.5, "schedule": 1.0}
    assert values(plateau, 8, at1=1.0, at2=0.5, at4=1.0, at5=2.0, at6=1.0, at7=1.0) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    made = make_schedule(plateau, "x")
    made(3, (3, 1.0)), made(4, (4, 0.5))
    other = make_schedule(plateau, "x")
    other.load(made.state())
    assert other(5, (5, 0.5)) == made(5, (5, 0.5)) == 0.5
    with pytest.raises(ValueError, match="Expected score with step >= 5"):
        made(6, (2, 0.1))


def test_large_steps():
    growing = {"@schedules": "compounding.v1", "start": 1.0, "stop": 7.0, "compound": 10.0}
    assert make_schedule(growing, "x")(10**6) == 7.0


def test_schedules_as_generators():
    made = make_schedule([1, 2, 3, 4], "x")
    assert list(itertools.islice(made.to_generator(1, 2), 3)) == [2, 4, 4]
    with pytest.raises(ValueError, match="must not be negative"):
        next(made.to_generator(-1))
    with pytest.raises(ValueError, match="Step must be non-negative, was: -1"):
        made(-1)
    with pytest.raises(ValueError, match="expected to increase"):
        made(0)


def test_intervals():
    assert make_schedule({"@schedules": "constant.v1", "rate": 1, "interval": "epoch"}, "x").per_epoch
    assert not make_schedule({"@schedules": "constant.v1", "rate": 1}, "x").per_epoch


def test_a_schedule_is_one():
    made = Constant(2.0)
    assert make_schedule(made, "x") is made
    assert len(SCHEDULES) == 8


@pytest.mark.parametrize("value, path, message", [
    ("0.5", "x", "Invalid schedule for 'x' (<class 'str'>)"),
    ([], "x", "must have at least one value"),
    (["a"], "x", "must be a list of numbers"),
    ({"@schedule": "constant.v1"}, "x", 'did you mean "@schedules"?'),
    ({"rate": 1}, "x", 'needs one key "@schedules", but has none'),
    ({"@schedules": "constan.v1"}, 'x["@schedules"]', 'did you mean "constant.v1"?'),
    ({"@schedules": "constant.v1", "rte": 1}, 'x["rte"]', 'unknown option of constant.v1; did you mean "rate"?'),
    ({"@schedules": "constant.v1"}, "x", 'needs the option "rate"'),
    ({"@schedules": "constant.v1", "rate": "1"}, 'x["rate"]', "must be a number"),
    ({"@schedules": "constant.v1", "rate": 1, "interval": "batch"}, 'x["interval"]', '"step" or "epoch"'),
    ({"@schedules": "slanted_triangular.v1", "max_rate": 1, "num_steps": 5}, "x", "must be at least 1"),
    ({"@schedules": "constant_then.v1", "rate": 1, "steps": 1, "schedule": {"@schedules": "x"}},
     'x["schedule"]["@schedules"]', "unknown schedule 'x'"),
    ({"class": "StepLRR"}, 'x["class"]', 'did you mean "StepLR"?'),
])  # fmt: skip
def test_errors(value, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        make_schedule(value, path="x")
    assert caught.value.path == path and message in caught.value.message
