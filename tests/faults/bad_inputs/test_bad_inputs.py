"""Bad inputs of all kinds, generated: exit code 1 and one clear first line for each, no traceback, no file written.

Here each kind is sampled; with BAD_INPUTS=all in the environment all of them (tens of thousands) are tried.
"""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.helpers import ROOT
from tests.faults.bad_inputs import files, global_options, layer_options
from tests.faults.bad_inputs.cases import Case, fault

ALL = os.environ.get("BAD_INPUTS") == "all"
KINDS: dict[str, tuple[Callable[[], Iterator[Case]], int]] = {  # name -> (its cases, one of how many is tried here)
    "layers": (layer_options.layer_cases, 20),
    "losses": (layer_options.loss_cases, 10),
    "options": (global_options.option_cases, 40),
    "nested": (global_options.nested_cases, 20),
    "files": (files.file_cases, 1),
    "code": (files.code_cases, 1),
    "lines": (files.line_cases, 1),
}


def chosen(kind: str, every: int = 1) -> list[Case]:
    """The cases of a kind that are tried: the same ones each time."""
    cases, share = KINDS[kind]
    share = every if ALL else share * every
    return [case for case in cases() if zlib.crc32(case.name.encode()) % share == 0]


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def tried(case: Case, folder: Path) -> str:
    """What is wrong about the answer to a case; "" if nothing is."""
    folder.mkdir()
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    try:
        found = fault(case, *case.run(folder))
    except Exception as exc:
        found = f"{type(exc).__name__}: {exc}"
    more = written(folder) - set(case.files)
    return found or (f"files were written: {sorted(more)}" if more else "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_kind(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    faults = {case.name: tried(case, tmp_path / str(i)) for i, case in enumerate(chosen(kind))}
    assert {name: found for name, found in faults.items() if found} == {}


def test_there_are_enough():
    assert sum(len(chosen(kind)) for kind in KINDS) >= 300


@pytest.mark.parametrize("kind", ["files", "code", "lines"])
def test_as_a_process(kind: str, tmp_path: Path):
    """A few of them by `rnn.py` itself."""
    for i, case in enumerate(chosen(kind, every=12)):
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, content in case.files.items():
            (folder / name).write_bytes(content)
        run = [sys.executable, str(ROOT / "rnn.py"), *case.arguments]
        done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        assert fault(case, done.returncode, done.stderr) == "", case.name
        assert written(folder) == set(case.files)
