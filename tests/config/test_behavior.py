"""The behavior version."""

from pathlib import Path

import pytest

from returnn_lite.config import LATEST_BEHAVIOR, Behavior, Config
from returnn_lite.config.behavior import CHANGES
from returnn_lite.errors import ConfigError
from returnn_lite.log import FileTarget, Log


def test_unset_is_zero():
    behavior = Behavior.from_config(Config())
    assert behavior.version == 0 and not behavior >= 1


def test_comparisons():
    behavior = Behavior(12)
    assert behavior >= 12 and behavior > 11 and behavior <= 12 and behavior < 13
    assert not behavior >= 13 and not behavior > 12 and not behavior <= 11 and not behavior < 12


def test_setting_twice():
    behavior = Behavior.from_config(Config({"behavior_version": 12}))
    behavior.set(12)
    with pytest.raises(ConfigError, match="^behavior_version: was set to 12 before, but is 13 now$"):
        behavior.set(13)


@pytest.mark.parametrize("version", [-1, "new", 1.5])
def test_nonsense(version: object):
    with pytest.raises(ConfigError, match="^behavior_version: must"):
        Behavior.from_config(Config({"behavior_version": version}))


def test_unknown_higher_version_is_warned_about(tmp_path: Path):
    file = tmp_path / "log"
    log = Log([FileTarget(str(file), 1, "raw")])
    assert Behavior.from_config(Config({"behavior_version": LATEST_BEHAVIOR + 1}), log) >= 30
    assert Behavior.from_config(Config({"behavior_version": LATEST_BEHAVIOR}), log) >= 30
    log.close()
    assert file.read_text() == "WARNING: behavior_version 31 is higher than the latest known, 30\n"


def test_table():
    assert max(CHANGES) == LATEST_BEHAVIOR == 30
    assert set(CHANGES) == {*range(1, 19), 21, 30}
