"""Tiny runs: a config that makes its own data, and `rnn.py` as a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from returnn_lite.config import Config
from returnn_lite.log import Log

ROOT = Path(__file__).resolve().parents[2]
DIMS = {"data": (4, 2), "classes": (4, 1)}


def sequences(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Sequences of 3 to 8 noisy one-hot frames, and their classes."""
    random = np.random.RandomState(seed)
    made = []
    for _ in range(count):
        classes = random.randint(0, 4, (random.randint(3, 9),)).astype("int32")
        frames = np.eye(4)[classes] + random.normal(0, 0.3, (len(classes), 4))
        made.append({"data": frames.astype("float32"), "classes": classes})
    return made


def dataset(count: int, seed: int, **options) -> dict:
    """A StaticDataset of such sequences."""
    return {"class": "StaticDataset", "data": sequences(count, seed), "output_dim": DIMS, **options}


def network(n_out: int = 5, **options) -> dict:
    """A framewise net with dropout."""
    return {
        "h": {"class": "linear", "activation": "tanh", "n_out": n_out, "from": "data", "dropout": 0.2, **options},
        "output": {"class": "softmax", "loss": "ce", "from": "h", "target": "classes"},
    }


def options(folder: Path, **changes) -> dict:
    """A whole training run."""
    made = {
        "use_tensorflow": True,
        "device": "cpu",
        "train": dataset(14, 1, seq_ordering="random"),
        "dev": dataset(6, 2),
        "extern_data": {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True}},
        "network": network(),
        "model": str(folder / "model"),
        "learning_rate_file": str(folder / "rates"),
        "num_epochs": 3,
        "batch_size": 30,
        "max_seqs": 4,
        "optimizer": {"class": "adam"},
        "learning_rate": 0.02,
        "learning_rate_control": "newbob",
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


class Lines:
    """A log target of verbosity 5 that keeps all lines."""

    verbosity = 5

    def __init__(self):
        self.lines: list[str] = []

    def write(self, level: int, text: str) -> None:
        self.lines += text.split("\n")

    def close(self) -> None:
        pass


def run(config: dict) -> list[str]:
    """Runs the config's task in this process; returns the log's lines."""
    from returnn_lite.tasks import run_task

    target = Lines()
    run_task(Config(dict(config)), Log([target]))
    return target.lines


def command(config: Path | str, *arguments: str) -> list[str]:
    """The command line of `rnn.py`."""
    return [sys.executable, str(ROOT / "rnn.py"), str(config), *arguments]


def rnn(config: Path | str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Runs `rnn.py` in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(config, *arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


CONFIG_FILE = f"""#!rnn.py
import sys

import numpy

sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path

from tests.engine.helpers import options

globals().update(options(Path("out")))
"""
