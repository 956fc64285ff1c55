"""Builds the wheel, installs it in an environment of its own, and uses it there: far from the checkout.

The environment takes the dependencies of the one that the tests run in; or, where the variable WHEEL_PYTHON names an
interpreter, it is one of that interpreter, and everything comes from the package index.
"""

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """#!rnn.py
network = {
    "embedded": {"class": "linear", "activation": None, "from": "data", "n_out": 24},
    "encoder": {"class": "rec", "unit": "nativelstm2", "from": "embedded", "n_out": 24},
    "output": {"class": "rec", "from": [], "target": "classes", "max_seq_len": "max_len_from('base:encoder')", "unit": {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 4, "initial_output": 0},
        "end": {"class": "compare", "kind": "equal", "from": "output", "value": 0},
        "label": {"class": "linear", "activation": None, "from": "output", "n_out": 24, "initial_output": 0},
        "state": {"class": "rnn_cell", "unit": "LSTMBlock", "from": ["prev:label", "prev:context"], "n_out": 24},
        "energy": {"class": "dot", "from": ["base:encoder", "state"], "reduce": "F", "var1": "T", "var2": None},
        "weights": {"class": "softmax_over_spatial", "from": "energy"},
        "context": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
        "prob": {"class": "softmax", "from": ["state", "context"], "target": "classes", "loss": "ce"}}},
    "decision": {"class": "decide", "from": "output", "target": "classes", "only_on_search": True},
}
optimizer = {"class": "adam"}
learning_rate = 0.01
batch_size = 500
num_epochs = 2
model = "out/model"
tf_log_dir = "out/events"
search_output_layer = "decision"
search_output_file = "hyps.py"
search_output_file_format = "py"
use_tensorflow = True
"""
# Runs every tool's --help in one process, then imports every module of the package.
EVERYTHING = """
import contextlib, importlib, io, pkgutil, returnn_lite
from returnn_lite.tools import TOOLS, run_tool
for tool in TOOLS:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            run_tool(tool, ["--help"])
        except SystemExit as end:
            assert end.code in (0, None), tool
    assert "usage: " in text.getvalue(), tool
for module in pkgutil.walk_packages(returnn_lite.__path__, "returnn_lite."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(returnn_lite.__file__)
"""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, made by the setuptools of this environment from a copy (a build leaves files)."""
    copy = folder / "source"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if name.startswith(("returnn_lite/", "pyproject.toml", "README", "LICENSE")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass
class Installed:
    """An environment with the wheel, and a folder in which its programs run without the checkout in sight."""

    environment: Path
    folder: Path

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        return self.environment / ("Scripts" if os.name == "nt" else "bin")

    def run(self, program: str, *arguments: str, code: int = 0) -> str:
        """The output of a program of the environment, which ends with this exit code."""
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
        variables = {name: value for name, value in os.environ.items() if name not in left_out}
        words = [str(self.programs / program), *arguments]
        done = subprocess.run(words, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=500)
        if done.returncode != code:
            raise AssertionError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def install(wheel: Path, folder: Path) -> Installed:
    """Makes the environment."""
    made = Installed(folder / "environment", folder / "work")
    made.folder.mkdir()
    other = os.environ.get("WHEEL_PYTHON")
    subprocess.run([other or sys.executable, "-m", "venv", str(made.environment)], check=True)
    if other is None:
        (site,) = made.environment.glob("**/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in here))
    source = ["-c", str(ROOT / "constraints.txt")] if other else ["--no-deps", "--no-index"]
    made.run("python", "-m", "pip", "install", "--quiet", *source, str(wheel))
    return made


def write_data(folder: Path) -> None:
    """Sentences of small letters, and the same in capitals."""
    rng = random.Random(1)
    lines = [" ".join(rng.choice("abcdef") for _ in range(rng.randint(2, 5))) for _ in range(300)]
    (folder / "source.txt").write_text("\n".join(lines) + "\n")
    (folder / "target.txt").write_text("\n".join(lines).upper() + "\n")
    (folder / "my.config").write_text(CONFIG)
