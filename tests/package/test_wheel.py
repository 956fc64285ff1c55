"""The wheel holds all that its users need: it is installed, and used without the checkout."""

import ast
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from returnn_lite.tools import PREFIX, TOOLS
from returnn_lite.version import __version__
from tests.package.installed import EVERYTHING, ROOT, Installed, build_wheel, install, write_data


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def content(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(ending))
        return file.read(name).decode()


def test_files_of_the_wheel(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "returnn_lite").rglob("*.py")}
    assert names == sources | {"returnn_lite/py.typed"}
    assert wheel.name == f"returnn_lite-{__version__}-py3-none-any.whl"


def test_what_it_says_of_itself(wheel: Path):
    lines = content(wheel, "METADATA").splitlines()
    assert f"Version: {__version__}" in lines and "License-Expression: MIT" in lines
    assert "Requires-Python: >=3.10" in lines and "License-File: LICENSE" in lines
    needed = {re.findall(r"[\w-]+", line)[1] for line in lines if re.fullmatch("Requires-Dist: [^;]+", line)}
    assert needed == {"torch", "numpy", "h5py", "pyyaml", "tensorboard", "dm-tree"}
    extras = {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")}
    assert {"audio", "text", "plot", "learned-lr", "fast", "dev", "all"} <= extras


def test_the_changelog_has_the_version():
    assert re.search(
        rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_every_tool_is_a_program(wheel: Path):
    programs = dict(re.findall(r"^(\S+) = (\S+)$", content(wheel, "entry_points.txt"), re.M))
    assert programs.pop("returnn-lite") == "returnn_lite.cli:run"
    assert programs == {f"{PREFIX}{tool}": "returnn_lite.cli:run_program" for tool in TOOLS}


def test_every_extra_that_texts_name_exists(wheel: Path):
    """Also in error messages."""
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", content(wheel, "METADATA"), re.M))
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile", ROOT / "constraints.txt"]
    for path in (*(ROOT / "returnn_lite").rglob("*.py"), *pages):
        for names in re.findall(r"(?:returnn-lite|\"\.|-e \.)\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, path


# --- in the environment ---


def help_and_version(installed: Installed) -> None:
    assert "usage: rnn.py CONFIG" in installed.run("returnn-lite", "--help")
    assert installed.run("python", "-m", "returnn_lite", "-V").startswith(f"returnn_lite version {__version__}, ")
    assert "choice" in installed.run("returnn-lite", "--list-layers")


def every_module_and_tool(installed: Installed) -> None:
    found = installed.run("python", "-c", EVERYTHING).strip().splitlines()[-1]
    assert Path(found).is_relative_to(installed.environment)
    assert (Path(found).parent / "py.typed").is_file()
    assert "usage: hdf_dump.py" in installed.run("returnn-lite-hdf-dump", "--help")


def from_texts_to_an_error_rate(installed: Installed) -> None:
    """Own data, training, going on, averaging, search, error rate; by the programs of both names."""
    run = installed.run
    run("returnn-lite-data", "text", "source.txt", "target.txt", "pairs")
    configs = ("pairs/data.config", "my.config")
    assert "Finished training in epoch 1." in run("returnn-lite", *configs, "++num_epochs", "1")
    assert "Finished training in epoch 2." in run("returnn-lite", *configs)
    run("returnn-lite-avg-checkpoints", "out/average.pt", "--model", "out/model", "--epochs", "1-2")
    run("returnn-lite", *configs, "++task", "search", "++load", "out/average")
    hyps = ast.literal_eval((installed.folder / "hyps.py").read_text())
    assert len(hyps) == 15
    text = run("returnn-lite", "calculate-word-error-rate", "--hyps", "hyps.py", "--refs", "pairs/test.refs.py")
    assert re.match(r"WER \d+\.\d\d %: \d+ errors in \d+ words, \d+ of 15 sequences wrong\n", text)
    assert "output/rec/state" in run("returnn-lite-count-params", "out/average.pt", "--depth", "3")


def a_layer_s_output_as_hdf(installed: Installed) -> None:
    options = {
        "task": "forward",
        "load_epoch": "2",
        "forward_data": "dev",
        "forward_output_layer": "encoder",
        "forward_batch_size": "500",
        "output_file": "o.hdf",
    }
    words = [word for key, value in options.items() for word in (f"++{key}", value)]
    installed.run("returnn-lite", "pairs/data.config", "my.config", *words)
    assert "seq 0 tag: " in installed.run("returnn-lite-dump-dataset", "o.hdf", "--endseq", "1")


def the_schema_of_configs(installed: Installed) -> None:
    installed.run("returnn-lite-option-reference", "options.md", "schema.json")
    written = json.loads((installed.folder / "schema.json").read_text())
    assert written == json.loads((ROOT / "docs" / "config.schema.json").read_text())


def a_mistake_is_one_line(installed: Installed) -> None:
    words = [str(installed.programs / "returnn-lite"), "pairs/data.config", "my.config", "++num_epoch", "3"]
    code = f"import subprocess, sys; sys.exit(subprocess.run({words}, stderr=subprocess.STDOUT).returncode)"
    assert 'did you mean "num_epochs"' in installed.run("python", "-c", code, code=1)


@pytest.mark.skipif(sys.platform == "win32", reason="programs there are started in another way")
def test_installed(wheel: Path, tmp_path: Path):
    """One test, in this order: what one makes the next ones use."""
    installed = install(wheel, tmp_path)
    write_data(installed.folder)
    help_and_version(installed)
    every_module_and_tool(installed)
    from_texts_to_an_error_rate(installed)
    a_layer_s_output_as_hdf(installed)
    the_schema_of_configs(installed)
    a_mistake_is_one_line(installed)
