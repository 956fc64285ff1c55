"""Tools as sub-commands of `returnn-lite`."""

import importlib

import pytest

from returnn_lite.cli import main
from returnn_lite.tools import TOOLS, tool_of
from tests.engine.helpers import ROOT


def test_every_script_is_a_sub_command():
    scripts = {path.name for path in (ROOT / "tools").glob("*.py")}
    assert {name.removesuffix(".py").replace("_", "-") for name in scripts} == set(TOOLS)
    for place, meaning in TOOLS.values():
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(f"returnn_lite.tools.{module}"), function)) and meaning


def test_running_one(capsys, tmp_path, monkeypatch):
    assert main(["tools"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and meaning in listed for name, (_, meaning) in TOOLS.items())
    assert main(["dump-dataset", "{'class': 'Task12AXDataset', 'num_seqs': 3}", "--get_num_seqs"]) == 0
    assert "3" in capsys.readouterr().out
    assert main(["hdf_dump", "{'class': 'Task12AXDatase'}", str(tmp_path / "x.hdf")]) == 1
    assert 'did you mean "Task12AXDataset"' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["count-params", "--help"])
    assert "usage: count-params.py" in capsys.readouterr().out


def test_a_config_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tool_of("count-params") == "count-params" and tool_of("my.config") is None
    (tmp_path / "count-params").write_text("#!rnn.py\n")
    assert tool_of("count-params") is None
