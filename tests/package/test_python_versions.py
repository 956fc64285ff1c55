"""The oldest Python: nothing of the library is newer. (ruff checks the syntax, by its `target-version`.)"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engine.helpers import ROOT

OLDEST = "3.10"


def newer(folder: Path) -> list[str]:
    """What needs a newer Python than the oldest one, by vermin."""
    spec = find_spec("vermin")
    assert spec is not None
    code = "from vermin import main; main()"
    options = [f"--target={OLDEST}-", "--violations", "--no-tips", "--processes=1", str(folder)]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=300)
    assert "Minimum required versions" in done.stdout, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if re.search(r"requires .* 3\.(1[1-9]|[2-9]\d)", line)]


def test_nothing_is_newer_than_the_oldest_python():
    pytest.importorskip("vermin")
    assert newer(ROOT / "returnn_lite") == []


def test_the_finder(tmp_path: Path):
    pytest.importorskip("vermin")
    (tmp_path / "a.py").write_text("from typing import Self, TypeAlias\nimport tomllib\n")
    assert len(newer(tmp_path)) == 2


def test_one_oldest_python_everywhere():
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={OLDEST}"' in text and f"Python :: {OLDEST}" in text
    assert f'target-version = "py{OLDEST.replace(".", "")}"' in text
    assert f"Python {OLDEST} or newer" in (ROOT / "Makefile").read_text()
