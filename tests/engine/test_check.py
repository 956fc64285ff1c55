"""`--check`: one step, nothing written."""

import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.tasks import run_task
from tests.engine.helpers import CONFIG_FILE, Lines, dataset, network, options, rnn


def check(config):
    target = Lines()
    run_task(Config(dict(config)), Log([target]), check=True)
    return target.lines


def test_a_good_config(tmp_path):
    dump = {"class": "hdf_dump", "from": "h", "filename": str(tmp_path / "dump.hdf"), "is_output_layer": True}
    changes = {"network": {**network(), "dump": dump}, "helper": 3, "function": print, "_private": 4}
    lines = check(options(tmp_path, num_epoch=5, num_epochs=None, **changes))
    assert lines[-1] == "Config OK." and not list(tmp_path.iterdir())
    assert "  h/W [4, 5]" in lines and "net params #: 49" in lines
    assert "unused options: num_epoch, helper" in lines or "unused options: helper, num_epoch" in lines
    assert any('"num_epoch" is not known and was not read; did you mean "num_epochs"' in line for line in lines)
    assert any(line.startswith("scores of the step: cost:output ") and "error:output" in line for line in lines)


def test_without_training(tmp_path):
    lines = check(options(tmp_path, task="search", train=None, dev=None, search_data=dataset(3, 5)))
    assert lines[-1] == "Config OK."
    with pytest.raises(ConfigError, match="train: there must be a dataset"):
        check(options(tmp_path, train=None, dev=None))


WRONG = {
    "lacks": {"network": {"output": {"class": "softmax", "from": "missing", "target": "classes"}}},
    "optimizer": {"optimizer": {"class": "adamm"}},
    "finite": {"network": {"output": {"class": "eval", "from": "data", "eval": "source(0) / 0", "loss": "as_is"},
                           "h": {"class": "linear", "activation": None, "n_out": 1, "from": "data", "loss": "as_is"}}},
    "task": {"task": "trian"},
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_faults_are_errors(tmp_path, what):
    with pytest.raises(ConfigError):
        check(options(tmp_path, **WRONG[what]))


def test_the_command(tmp_path):
    (tmp_path / "a.config").write_text(CONFIG_FILE)
    done = rnn("a.config", "--check", folder=tmp_path)
    assert done.returncode == 0 and "Config OK." in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.config"]
    assert rnn("a.config", "--check", "++optimizer", "{'class': 'adamm'}", folder=tmp_path).returncode == 1
