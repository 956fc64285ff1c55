"""The Dockerfile names what there is. No image is built here: its lines are read, and what it copies makes a wheel."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.helpers import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
INSTALL = (ROOT / "docs" / "install.md").read_text()
ARGS = dict(re.findall(r"^ARG (\w+)=(\S+)$", TEXT, re.M))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", TEXT, re.M)


def copied() -> list[str]:
    return [name for line in instructions("COPY") for name in line.split()[:-1]]


def test_arguments():
    assert set(ARGS) == {"PYTHON", "TORCH", "EXTRAS"}
    assert f'"Programming Language :: Python :: {ARGS["PYTHON"]}"' in PYPROJECT
    table = PYPROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert set(ARGS["EXTRAS"].split(",")) <= set(re.findall(r"^([\w-]+) = \[", table, re.M))
    used = set(re.findall(r"\$\{(\w+)\}", TEXT))
    assert used == set(ARGS)


def test_torch_comes_from_an_index_that_the_page_names():
    assert "https://download.pytorch.org/whl/${TORCH}" in TEXT
    indices = set(re.findall(r"download\.pytorch\.org/whl/(\w+)", INSTALL))
    examples = re.findall(r"--build-arg TORCH=(\w+)", TEXT + INSTALL)
    assert {ARGS["TORCH"], *examples} <= indices and len(examples) == 2


def test_pip_uses_files_that_are_copied_before():
    for line in instructions("RUN"):
        for name in re.findall(r"-c (\S+)", line):
            assert TEXT.index(f"COPY {name}") < TEXT.index(line)
    assert sum("pip install" in line for line in instructions("RUN")) == 2


def test_what_is_copied_exists_and_is_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == kept and all((ROOT / name).exists() for name in kept)


def test_the_entry_point_is_a_program_of_the_package():
    (program,) = json.loads(instructions("ENTRYPOINT")[0])
    assert re.search(rf"^{program} = ", PYPROJECT.split("[project.scripts]")[1], re.M)


def test_what_is_copied_makes_the_wheel(tmp_path: Path):
    pytest.importorskip("setuptools", minversion="77")
    for name in copied():
        source, target = ROOT / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("out/*.whl"))) == 1
