"""Writes the networks of recorded training runs as Python files: their numbers on the data of the run.

    python tests/conformance/to_torch_runs.py CASES/compat [-k TEXT] [--out FOLDER]

A case is a folder with a `case.config`, the parameters of its last epoch (`params.NNN.npz`) and the further commands of
`cmds.json`. Of each case these are written: the layers of its forward and search commands, and all layers with a loss.
What the written files give on batches of the data of the run, in a process that
cannot import the package, is held against the network; what the commands write with the recorded parameters, against
the recorded files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import returnn_lite.catalog  # noqa: E402, F401 - fills the registries
from returnn_lite.compat.config_imports import config_imports  # noqa: E402
from returnn_lite.compat.tf import eval_names  # noqa: E402
from returnn_lite.config import Config, load_into  # noqa: E402
from returnn_lite.engine import data  # noqa: E402
from returnn_lite.engine.setup import load_network  # noqa: E402
from returnn_lite.errors import ConfigError  # noqa: E402
from returnn_lite.log import Log  # noqa: E402
from returnn_lite.to_torch.batches import results  # noqa: E402
from tests.to_torch.alone import run_alone  # noqa: E402

RECORDED = ("params.", "init.", "newbob.data", "log.txt", "cmds.json", "search", "fwd.npz")
LEFT_OUT = ("++task", "++load_epoch", "++output_file", "++search_output_file", "++search_output_file_format")


@dataclass(frozen=True)
class Job:
    """A file to write: options of the command line, the layer, whether it searches."""

    name: str
    options: dict[str, str]
    layer: str
    search: bool

    @property
    def arguments(self) -> dict[str, str]:
        """The options of the task."""
        layer = "search_output_layer" if self.search else "forward_output_layer"
        return {**self.options, "task": "to_torch", "to_torch_search": str(self.search), layer: self.layer}


def loading(epoch: int) -> dict[str, str]:
    """The options that load the recorded parameters of an epoch."""
    return {"load": f"params.{epoch:03d}.npz", "load_epoch": str(epoch)}


class Run:
    """A copy of a case in a folder of its own, which is the working directory."""

    def __init__(self, case: Path, folder: Path) -> None:
        self.case = case
        for path in case.iterdir():
            if not path.name.startswith(RECORDED):
                shutil.copy(path, folder / path.name)
        (folder / "out").mkdir()
        for params in sorted(case.glob("params.[0-9]*.npz")):
            shutil.copy(params, folder / params.name)
        self.loaded = loading(int(params.name.split(".")[1]))
        self.commands: dict[str, list[str]] = json.loads((case / "cmds.json").read_text()).get("more", {})

    def command(self, options: dict[str, str]) -> str:
        """Runs the command line; what went wrong, "" for nothing."""
        arguments = [part for key, value in {**self.loaded, **options}.items() for part in (f"++{key}", value)]
        call = [sys.executable, str(ROOT / "rnn.py"), "case.config", *arguments]
        done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False)
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        return (
            lines[-1] if done.returncode and lines[0].startswith("Traceback") else lines[0] if done.returncode else ""
        )

    def config(self, options: dict[str, str]) -> Config:
        """The config with these options."""
        config = Config()
        with config_imports(config):
            load_into(config, ["case.config"], list({**self.loaded, **options}.items()))
        config.eval_names = eval_names
        config.set("device", "cpu")
        return config

    def network(self, options: dict[str, str], layer: str, search: bool, *, losses: bool = False):
        """The config and its network."""
        task = "search" if search else options.get("to_torch_network", "forward")
        config = self.config({**options, "task": task})
        data.complete_extern_data(
            config, (data.open_dataset(config, n, Log.silent()) for n in ("train", "dev", "eval"))
        )
        asked = (layer,) if layer else ()
        with config_imports(config):
            loaded = load_network(config, Log.silent(), task="forward", search=search, eval=losses, extra_layers=asked)
        return config, loaded.net

    def jobs(self) -> list[Job]:
        """What is to be written."""
        found = []
        for name, arguments in self.commands.items():
            given = {key[2:]: value for key, value in zip(arguments[::2], arguments[1::2], strict=True)}
            options = {key: value for key, value in given.items() if f"++{key}" not in LEFT_OUT}
            search = given["task"] == "search"
            option = "search_output_layer" if search else "forward_output_layer"
            layer = options.pop(option, None) or self.config(options).value(option, "output")
            found.append(Job(name, options, layer, search))
        options = {}
        try:
            _, net = self.network(options, "", False, losses=True)
        except ConfigError:  # its network is for the training alone
            options = {"to_torch_network": "train"}
            _, net = self.network(options, "", False, losses=True)
        layers = {node.name.removesuffix(":out") for node in net.loss_nodes}
        return found + [Job(f"loss of {layer}", options, layer, False) for layer in sorted(layers)]

    def batches(self, config: Config, net) -> list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """The data of `dev`, two sequences a batch."""
        config.update({"max_seq_length": 0, "max_seqs": 2, "batch_size": 10000, "chunking": "0"})
        dataset = data.require_dataset(config, "dev", Log.silent())
        dataset.init_seq_order(epoch=1)
        made = []
        for batch in data.load_batches(dataset, data.search_batching(config, net), net, config):
            arrays = {k: torch.as_tensor(v) for k, v in batch.data.items() if k in net.used_data_keys}
            made.append((arrays, {k: torch.as_tensor(v) for k, v in batch.lengths.items() if k in arrays}))
        return made


def outcome(run: Run, job: Job, file: Path) -> str:
    """Writes the file of a job and runs it on the data; what is wrong, "" for nothing."""
    wrong = run.command({**job.arguments, "to_torch_file": str(file)})
    if wrong:
        return wrong
    config, net = run.network(job.options, job.layer, job.search)
    given = run.batches(config, net)
    copies = {}
    for i, (arrays, lengths) in enumerate(given):
        copy = file.with_name(f"{file.stem}_{i}.py")
        shutil.copy(file, copy)
        shutil.copy(file.with_suffix(".pt"), copy.with_suffix(".pt"))
        copies[copy] = 1, {**arrays, **{f"{key}_lengths": x for key, x in lengths.items()}}
    for found, (arrays, lengths) in zip(run_alone(copies), given, strict=True):
        with torch.no_grad(), config_imports(config):
            wanted = results(net, job.layer, arrays, lengths)
        for name, x in wanted.items():
            if found[name].shape != x.shape or not torch.allclose(found[name], x, rtol=1e-5, atol=1e-5, equal_nan=True):
                return f"{name} differs on the data"
    return ""


def recorded(run: Run, name: str, arguments: list[str]) -> str:
    """Runs a further command with the recorded parameters; how what it writes differs from what was recorded."""
    given = {key[2:]: value for key, value in zip(arguments[::2], arguments[1::2], strict=True)}
    wrong = run.command({**given, **loading(int(given["load_epoch"]))})
    if wrong:
        return wrong
    if given["task"] == "forward":
        import h5py

        want, file = np.load(run.case / "fwd.npz"), given["output_file"]
        with h5py.File(file) as hdf:
            return "" if np.allclose(hdf["inputs"], want["inputs"], rtol=1e-3, atol=1e-4) else f"{name}: {file} differs"
    file = Path(given["search_output_file"])
    numbers = re.compile(r"(?:np\.float32\()?(-?\d+\.\d+(?:e-?\d+)?)\)?")
    got, want = (path.read_text() for path in (file, run.case / file.name))
    close = np.allclose(*([float(x) for x in numbers.findall(text)] for text in (got, want)), rtol=1e-3, atol=1e-4)
    return "" if close and numbers.sub("#", got) == numbers.sub("#", want) else f"{name}: {file} differs"


def reported(function: Callable[..., str], *args: object) -> str:
    """What the function gives, or the first line of its error."""
    try:
        return function(*args)
    except Exception as exc:  # noqa: BLE001 - the table says what is wrong, and the other cases run
        return f"{type(exc).__name__}: {exc}".partition("\n")[0]


def main() -> int:
    """Runs all cases; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-k", default="", help="cases whose names contain this")
    parser.add_argument("--out", type=Path, help="keep the files here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    good = bad = 0
    for case in sorted(
        path.parent.resolve() for path in args.folder.glob("*/case.config") if args.k in path.parent.name
    ):
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)
            with config_imports(Config()):
                run = Run(case, Path(temporary))
                rows = [
                    (job.name, job.layer, reported(outcome, run, job, Path(f"out/{i}.py").resolve()))
                    for i, job in enumerate(run.jobs())
                ]
                rows += [(name, "recorded", reported(recorded, run, name, x)) for name, x in run.commands.items()]
            if args.out is not None:
                shutil.copytree("out", args.out / case.name, dirs_exist_ok=True)
            os.chdir("/")
        for name, layer, wrong in rows:
            print(f"{'FAIL' if wrong else 'ok':4} {case.name} {name} ({layer}) {wrong}", flush=True)
            good, bad = good + (not wrong), bad + bool(wrong)
    print(f"{good} agree, {bad} do not")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
