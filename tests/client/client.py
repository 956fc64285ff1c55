"""A program that starts trainings as jobs of their own: its configs, its commands, and how it reads what they write."""

import gzip
import json
import os
import pprint
import subprocess
import sys
from pathlib import Path

from returnn_lite.compat.modules.datasets import SimpleHDFWriter
from tests.engine.helpers import ROOT, dataset

CLIENT_ROOT = ROOT / "compat_root"
KEYS = {"nan": float("nan"), "inf": float("inf")}  # the names it evaluates files with

UNIT = {
    "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
    "end": {"class": "compare", "kind": "equal", "from": "output", "value": 0},
    "embedding": {"class": "linear", "activation": None, "from": "prev:output", "n_out": 3},
    "prob": {"class": "softmax", "from": "embedding", "target": "classes", "loss": "ce"},
}
NETWORK = {
    "frames": {"class": "softmax", "from": "data", "target": "classes", "loss": "ce"},
    "output": {
        "class": "rec", "from": [], "target": "classes", "unit": UNIT, "max_seq_len": "max_len_from('base:frames')",
    },
    "decision": {"class": "decide", "from": "output", "loss": "edit_distance", "target": "classes"},
}  # fmt: skip

# What it writes behind the options; the networks of all epochs lie beside the config.
EPILOG = """
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))


def get_network(epoch, **kwargs):
    from networks import networks_dict
    return networks_dict[max(e for e in networks_dict if e <= epoch)]
"""


class Job:
    """A job's folders: the config in `output`, the process in `work`."""

    def __init__(self, folder: Path):
        self.output, self.work = folder / "output", folder / "work"
        for path in (self.output / "models", self.output / "networks", self.work):
            path.mkdir(parents=True)
        self.config = self.output / "returnn.config"
        (self.output / "networks" / "__init__.py").write_text(f"networks_dict = {{1: {NETWORK!r}}}\n")

    def write(self, late: str = "{}", epilog: str = EPILOG, **options) -> None:
        """The config: plain options, then `late` ones from a dict called `config`, then code."""
        lines = [f"{key} = {pprint.pformat(value)}" for key, value in sorted(options.items())]
        bound = f"import json\nconfig = json.loads({json.dumps(late)})\nlocals().update(**config)"
        self.config.write_text("\n".join(["#!rnn.py", *lines, bound, epilog]))

    def run(self, *more: str, root: Path = CLIENT_ROOT, start: tuple[str, ...] = (), **environment: str):
        """The very command of the client; its result."""
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment}
        command = [sys.executable, *start, str(root / "rnn.py"), str(self.config), *more]
        return subprocess.run(
            command, cwd=self.work, env={**os.environ, **threads}, capture_output=True, text=True, timeout=300
        )

    def files(self) -> list[str]:
        """What a run left in the working directory."""
        return sorted(path.name for path in self.work.iterdir())


def write_data(path: Path, count: int, seed: int) -> dict:
    """An HDF file of made-up sequences, written as client scripts do; the dataset that reads it."""
    writer = SimpleHDFWriter(path, dim=4, extra_type={"classes": (4, 1, "int32")})
    for i, seq in enumerate(dataset(count, seed)["data"]):
        frames = seq["data"][None]
        writer.insert_batch(frames, [frames.shape[1]], [f"corpus/rec-{i}/1"], {"classes": seq["classes"][None]})
    writer.close()
    return {"class": "HDFDataset", "files": [str(path)], "use_cache_manager": True}


def common() -> dict:
    """The options of every job on this network."""
    return {
        "use_tensorflow": True,
        "device": "cpu",
        "log": ["./returnn.log"],
        "log_verbosity": 3,
        "target": "classes",
        "max_seqs": 4,
        "batch_size": 40,
        "extern_data": {
            "data": {"dim": 4},
            "classes": {"dim": 4, "sparse": True, "vocab": {"labels": ["</s>", "a@@", "b", "c"]}},
        },
    }


def training(job: Job) -> dict:
    """The options that every training gets."""
    return common() | {
        "task": "train",
        "learning_rate_file": "learning_rates",
        "learning_rate": 0.01,
        "num_epochs": 2,
        "save_interval": 1,
        "model": str(job.output / "models" / "epoch"),
        "cleanup_old_models": {"keep": [1, 2]},
    }


def read_rates(path: Path) -> dict:
    """The learning-rate file, `EpochData` being a dict."""
    return eval(path.read_text(), {"EpochData": dict, **KEYS})


def read_search(path: Path) -> dict:
    """The search's output."""
    text = gzip.open(path, "rt").read() if path.suffix == ".gz" else path.read_text()
    return eval(text, dict(KEYS))
