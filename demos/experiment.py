"""What the demos share: one config in one form, and calls of rnn.py for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where all commands run


class Experiment:
    """A config, and where its data and its results are, from the root.

    `form` is "" (as the config says), "-short" (own data), "-long", ….
    """

    def __init__(self, config: Path, form: str, num_epochs: int) -> None:
        here = config.parent
        self.config, self.form, self.num_epochs = config, form, num_epochs
        self.data_dir = here / ("data-short" if form == "-short" else "data")
        self.exp_dir = here / "out" / (config.stem + form)
        self.options = (
            ["++data_dir", self.data_dir, "++exp_dir", self.exp_dir, "++num_epochs", num_epochs] if form else []
        )

    def prepare(self, last_file: str, make_data: Callable[[Path], None]) -> None:
        """Make the data, unless `last_file` of them is there. The short form starts from scratch every time."""
        if self.form == "-short":
            shutil.rmtree(ROOT / self.exp_dir, ignore_errors=True)
        if not (ROOT / self.data_dir / last_file).exists():
            make_data(ROOT / self.data_dir)

    def rnn(self, *options: object) -> None:
        """Run rnn.py, and exit if it fails."""
        run("rnn.py", self.config, *self.options, *options)

    def use(self, task: str, output: Path, *options: object) -> Path:
        """Run a task that writes the file `output` with the trained model."""
        (ROOT / output).unlink(missing_ok=True)
        self.rnn("++task", task, "++load_epoch", self.num_epochs, *options)
        return ROOT / output


def run(script: str, *options: object) -> None:
    """Print the call of one of our scripts, run it, and exit if it fails."""
    arguments = [script, *map(str, options)]
    print("\n$ ./" + " ".join(arguments), flush=True)
    # These nets are so small that a second thread costs more than it saves.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment).returncode
    if code:
        sys.exit(f"{script} failed with exit code {code}")
