"""Kills and failures at the file operations of trainings: `run.py [--long] [--shape NAME]`; see README.md."""

import argparse
import errno
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402

from returnn_lite import cli, tasks  # noqa: E402
from tests.faults.inject import KILLED, Faults  # noqa: E402
from tests.faults.shapes import PROCESSES, SHAPES, config_text  # noqa: E402
from tests.faults.torn import TORN, Torn  # noqa: E402

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
SHORT = {"kill": 7, "fail": 5, "torn": 3}  # faults a run in the short form
MINUTES = 2.0  # for one training


# --- a training in a forked process ---------------------------------------------------------------------------------


@dataclass
class Done:
    """How a training ended."""

    code: int
    errors: str


def train(folder: Path, at: int | None = None, error: int | None = None) -> Done:
    """Runs the config in `folder`/run, with a fault, in a process of its own that has torch loaded already."""
    child = os.fork()
    if not child:
        try:
            os._exit(_train(folder, at, error))
        except BaseException:
            traceback.print_exc()
        os._exit(99)
    deadline = time.monotonic() + 60 * MINUTES
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.005)
    return Done(os.waitstatus_to_exitcode(ended[1]), (folder / "stderr").read_text())


def _train(folder: Path, at: int | None, error: int | None) -> int:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    warnings.simplefilter("ignore")
    os.chdir(folder / "run")
    Faults(folder / "run", at, error)
    code = cli.main(["config.py"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def prepare(name: str, folder: Path) -> Path:
    """An empty folder with the config."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "config.py").write_text(config_text(name))
    return folder


# --- what is compared -----------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, Any]:
    """What the files of a run hold, without times; the log and the config are left out."""
    root = folder / "run"
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in ("config.py", "log"))
    return {str(path.relative_to(root)): content(path, str(root)) for path in paths if "__pycache__" not in path.parts}


def content(path: Path, root: str) -> Any:
    """Of one file, comparable."""
    if path.suffix == ".pt":
        return plain(torch.load(path, weights_only=True))
    return without_times(path.read_bytes().replace(root.encode(), b"ROOT").decode("latin-1"))


def plain(value: Any) -> Any:
    """Tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return without_times(value) if isinstance(value, str) else value


def without_times(text: str) -> str:
    """Without the entry that depends on the clock."""
    return re.sub(r"':meta:epoch_train_time_secs': \d+,\n", "", text)


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Which files differ; "" if none does."""
    stray, lost = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    other = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
    named = {"stray files": stray, "missing files": lost, "other content": other}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)


# --- the faults -----------------------------------------------------------------------------------------------------


class Suite:
    """The faults of one kind of run. `problems`: what went wrong, a line each."""

    def __init__(self, name: str, folder: Path, *, long: bool) -> None:
        self.name, self.folder, self.long = name, folder, long
        self.problems: list[str] = []
        reference = prepare(name, folder / "reference")
        done = train(reference)
        if done.code:
            raise RuntimeError(f"{name}: {done.errors}")
        self.operations = (reference / "operations").read_text().splitlines()
        self.expected = contents(reference)

    def places(self) -> list[int]:
        """The operations at which something may go wrong; of many writes to a file in a row the first, middle, last."""
        runs: list[list[int]] = []
        for i, operation in enumerate(self.operations):
            if runs and operation.startswith("write") and operation == self.operations[i - 1]:
                runs[-1].append(i)
            else:
                runs.append([i])
        return sorted({i for run in runs for i in (run[0], run[len(run) // 2], run[-1])})

    def chosen(self, kind: str, numbers: Iterable[Any]) -> list[Any]:
        """All of them, or in the short form a few that are spread evenly."""
        everything = list(numbers)
        count = len(everything) if self.long else min(SHORT[kind], len(everything))
        return [everything[int((i + 0.5) * len(everything) / count)] for i in range(count)]

    def run(self) -> int:
        """All faults; their number."""
        faults = [*self.kills(), *self.failures(), *self.torn()]
        for what, fault in faults:
            folder = prepare(self.name, self.folder / "try")
            problem = fault(folder) or self.after(folder)
            if problem:
                self.problems.append(f"{self.name}: {what}: {problem}")
                print(self.problems[-1], flush=True)
        return len(faults)

    def after(self, folder: Path) -> str:
        """What is wrong once the training has run again."""
        done = train(folder)
        if done.code:
            return f"running again ends with {done.code}: {done.errors.strip().splitlines()[:1]}"
        return difference(contents(folder), self.expected)

    def kills(self) -> Iterator[tuple[str, Callable[[Path], str]]]:
        """The end of the process at an operation."""
        for at in self.chosen("kill", self.places()):

            def fault(folder: Path, at: int = at) -> str:
                done = train(folder, at)
                return "" if done.code == KILLED else f"was not killed but ended with {done.code}: {done.errors}"

            yield f"killed at {self.operations[at]} ({at})", fault

    def failures(self) -> Iterator[tuple[str, Callable[[Path], str]]]:
        """An operation that fails: the run ends with a line that names the file, or does without it."""
        for at in self.chosen("fail", self.places()):
            error = ERRORS[at % len(ERRORS)]

            def fault(folder: Path, at: int = at, error: int = error) -> str:
                done = train(folder, at, error)
                return self.told(done, self.operations[at].split(" ", 1)[1])

            yield f"{errno.errorcode[error]} at {self.operations[at]} ({at})", fault

    def told(self, done: Done, path: str) -> str:
        """What is wrong with the end of a run to which an operation on `path` failed."""
        lines = done.errors.splitlines()
        named = re.sub(r"\.(new_)?tmp$", "", os.path.basename(path))
        if done.code == 0:
            return ""
        if done.code != 1 or len(lines) != 1 or named not in lines[0]:
            return f"ends with {done.code} and says {lines[:2]} ({len(lines)} lines)"
        return ""

    def torn(self) -> Iterator[tuple[str, Callable[[Path], str]]]:
        """Files that are not as a run left them."""
        for what, torn in self.chosen("torn", TORN.items()):

            def fault(folder: Path, torn: Torn = torn) -> str:
                shutil.rmtree(folder / "run")
                shutil.copytree(self.folder / "reference" / "run", folder / "run")
                index = folder / "run" / "out" / "checkpoint"
                if index.exists():  # it has absolute names
                    index.write_text(index.read_text().replace(str(self.folder / "reference"), str(folder)))
                torn.tear(folder / "run" / "out")
                if not torn.names:
                    return ""
                done = train(folder)
                torn.mend(folder / "run" / "out")
                return self.told(done, torn.names) if done.code else "was not noticed"

            yield what, fault


def main() -> int:
    """The number of problems, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="every operation, and the runs with processes")
    parser.add_argument("--shape", help="only runs whose name has this in it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks.find_task("train")
    tasks.eval_names(None)
    problems, faults = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in {**SHAPES, **(PROCESSES if args.long else {})}:
            if (args.shape or "") in name:
                suite = Suite(name, Path(folder), long=args.long)
                faults += suite.run()
                problems += len(suite.problems)
    print(f"{faults} faults, {problems} problems")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
