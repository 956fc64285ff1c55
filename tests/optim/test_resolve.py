"""Which optimizer a config means, and what it says about wrong options."""

import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.optim import RULES, Optimizer
from returnn_lite.optim.algorithms import Adam, float32
from returnn_lite.optim.resolve import default_options, make_optimizer


def resolve(**config) -> Optimizer:
    made = Config(config)
    return make_optimizer(default_options(made, Log.silent()), made, "optimizer")


@pytest.mark.parametrize("value, name", [
    ({"class": "adam"}, "adam"),
    ({"class": "AdamOptimizer"}, "adam"),
    ({"class": "NAdam", "use_locking": False, "name": "x"}, "nadam"),
    ({"class": "Momentum", "momentum": 0.9}, "momentum"),
    ({"class": "GradientDescent"}, "gradientdescent"),
    ({"class": lambda: "adagrad"}, "adagrad"),
    ({"class": Adam}, "adam"),
    ("adadelta", "adadelta"),
    (None, "gradientdescent"),
    ({"class": "neuraloptimizer1"}, "neuraloptimizer1"),
])  # fmt: skip
def test_classes(value, name: str):
    assert isinstance(resolve(optimizer=value).rule, RULES[name])


def test_line_based_configs():
    config = Config()
    config.set_text("optimizer", "adam")
    assert default_options(config, Log.silent()) == {"class": "adam"}
    config.set_text("optimizer", "{'class': 'adam', 'epsilon': 1e-8}")
    assert default_options(config, Log.silent()) == {"class": "adam", "epsilon": 1e-8}


def test_epsilon():
    assert resolve(optimizer={"class": "adam"}).rule.epsilon == 1e-16
    assert resolve(optimizer={"class": "adam"}, optimizer_epsilon=1e-4).rule.epsilon == 1e-4
    assert resolve(optimizer={"class": "adam", "epsilon": 1e-3}, optimizer_epsilon=1e-4).rule.epsilon == 1e-3
    assert not hasattr(resolve(optimizer={"class": "adagrad"}, optimizer_epsilon=1e-4).rule, "epsilon")


def test_momentum_is_filled_in():
    assert resolve(optimizer={"class": "momentum"}, momentum=0.9).rule.momentum == 0.9
    assert resolve(optimizer={"class": "momentum", "momentum": 0.5}, momentum=0.9).rule.momentum == 0.5
    assert resolve(optimizer={"class": "rmsprop"}, momentum=0.9).rule.momentum == 0.9
    assert resolve(optimizer={"class": "rmsprop"}).rule.momentum == 0.0


def test_options_reach_the_rule():
    rule = resolve(optimizer={"class": "adam", "beta1": 0.5, "beta2": 0.99, "learning_rate_multiplier": 0.1})
    assert (rule.rule.beta1, rule.rule.beta2, rule.learning_rate_multiplier) == (0.5, float32(0.99), 0.1)


@pytest.mark.parametrize("value, path, message", [
    ({"class": "adammw"}, 'optimizer["class"]', 'unknown optimizer "adammw"; did you mean "adamw"?'),
    ({"class": 3}, 'optimizer["class"]', "must be the name of an optimizer, but is 3 instead"),
    ({"beta1": 0.9}, "optimizer", 'the dict must have "class"'),
    ({"class": "adam", "bet1": 0.9}, 'optimizer["bet1"]', 'did you mean "beta1"?'),
    ({"class": "gradientdescent", "momentum": 0.9}, 'optimizer["momentum"]', "unknown option of gradientdescent"),
    ({"class": "adam", "learning_rate": 0.1}, 'optimizer["learning_rate"]', "outside of the optimizer dict"),
    ({"class": "adam", "beta1": "x"}, 'optimizer["beta1"]', "must be a number, but is 'x' instead"),
    ({"class": "adam", "learning_rate_multiplier": None}, 'optimizer["learning_rate_multiplier"]', "must be a number"),
    ({"class": "momentum"}, "optimizer", 'momentum needs the option "momentum"'),
    ({"class": "adamw"}, "optimizer", 'adamw needs the option "weight_decay"'),
])  # fmt: skip
def test_errors(value, path: str, message: str):
    with pytest.raises(ConfigError) as caught:
        resolve(optimizer=value)
    assert caught.value.path == path and message in caught.value.message


@pytest.mark.parametrize("config, expected", [
    ({}, {"class": "gradientdescent"}),
    ({"adam": True}, {"class": "adam"}),
    ({"nadam": True, "adam": False}, {"class": "nadam"}),
    ({"adam": True, "nadam": True}, {"class": "adam"}),
    ({"adadelta": 1}, {"class": "adadelta"}),
    ({"adagrad": True}, {"class": "adagrad"}),
    ({"rmsprop": True}, {"class": "rmsprop"}),
    ({"rmsprop": 0.95}, {"class": "rmsprop", "decay": 0.95}),
    ({"rmsprop": False, "momentum": 0.5}, {"class": "momentum", "momentum": 0.5}),
    ({"adam": True, "optimizer": {"class": "nadam"}}, {"class": "nadam"}),
])  # fmt: skip
def test_older_switches(config: dict, expected: dict):
    assert default_options(Config(config), Log.silent()) == expected


def test_older_switches_in_lines():
    config = Config()
    config.set_text("nadam", "true")
    assert default_options(config, Log.silent()) == {"class": "nadam"}
    config = Config()
    config.set_text("rmsprop", "0.8")
    assert default_options(config, Log.silent()) == {"class": "rmsprop", "decay": 0.8}


def test_older_switches_warn_and_end_with_behavior_version_2(capsys):
    log = Log.from_config(Config({"log_verbosity": 2}))
    default_options(Config({"adam": True, "behavior_version": 1}), log)
    assert "deprecated" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="behavior_version"):
        default_options(Config({"adam": True, "behavior_version": 2}), log)
    assert default_options(Config({"behavior_version": 2}), log) == {"class": "gradientdescent"}


def test_adam_excludes_momentum():
    with pytest.raises(ConfigError, match="must be 0 with nadam"):
        default_options(Config({"nadam": True, "momentum": 0.9}), Log.silent())
