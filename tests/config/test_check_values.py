"""Global options that are a single bool or number: nonsense is refused before anything runs."""

from typing import Any

import pytest

from returnn_lite.config import Config
from returnn_lite.config.check_values import BOOLS, FLOATS, INTS, check_values
from returnn_lite.config.keys import KNOWN_KEYS
from returnn_lite.errors import ConfigError, ConfigErrors


@pytest.mark.parametrize("options", [
    {},
    {"num_epochs": 0, "save_interval": None, "seq_drop": 0.5, "load_epoch": "3", "random_seed": -1},
    {"log_batch_size": True, "dry_run": 0, "need_data": None, "shuffle_batches": "true", "calculate_exp_loss": ""},
])  # fmt: skip
def test_right(options: dict[str, Any]):
    check_values(Config(options))


@pytest.mark.parametrize("key, value", [
    ("num_epochs", -5),
    ("num_epochs", "many"),
    ("num_epochs", float("nan")),
    ("save_interval", -1),
    ("seq_drop", 1.5),
    ("seq_drop", float("nan")),
    ("random_seed", 2**64),
    ("behavior_version", -1),
    ("log_batch_size", "perhaps"),
    ("shuffle_batches", "false"),
    ("calculate_exp_loss", [1]),
    ("stop_on_nonfinite_train_score", "no"),
])  # fmt: skip
def test_wrong(key: str, value: Any):
    with pytest.raises(ConfigError, match=f"^{key}: must be .*, but is .* instead$"):
        check_values(Config({key: value}))


def test_texts_of_lines_and_of_the_command_line():
    config = Config()
    for key, text in (("log_batch_size", "no"), ("num_epochs", "3"), ("seq_drop", ".5")):
        config.set_text(key, text)
    check_values(config)
    config.set_text("log_batch_size", "perhaps")
    with pytest.raises(ConfigError, match="^log_batch_size: "):
        check_values(config)


def test_all_are_told():
    with pytest.raises(ConfigErrors) as caught:
        check_values(Config({"num_epochs": "x", "dry_run": "x", "seq_drop": "x"}))
    assert [error.path for error in caught.value.errors] == ["dry_run", "num_epochs", "seq_drop"]


def test_they_are_options():
    assert {*BOOLS, *INTS, *FLOATS} <= KNOWN_KEYS
