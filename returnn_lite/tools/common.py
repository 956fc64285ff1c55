"""What the console tools share: data that arguments name, errors in one line, progress on a terminal, output files."""

from __future__ import annotations

import functools
import gzip
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.config import Config, load_config
from returnn_lite.datasets import Dataset, dataset_defaults, init_dataset
from returnn_lite.engine.interrupt import Interrupted, StopRequest
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import TEMPORARY, own_temporary, remove_abandoned, remove_if_there
from returnn_lite.log import Log, Target

SECONDS_A_REPORT = 0.2


def tool(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], int]:
    """Makes of a tool's `main(argv)` one that returns the exit code: 1 where something is wrong, which stderr says.

    While it runs, configs find the modules they import, as in `rnn.py`.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str]) -> int:
        try:
            with StopRequest(), config_imports():
                main(argv)
        except BrokenPipeError:  # `… | head` has seen enough; Python must not try to write the rest at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt as exc:
            print(exc if isinstance(exc, Interrupted) else "interrupted", file=sys.stderr)
            return 1
        except (ConfigError, OSError, ImportError) as exc:
            print(exc, file=sys.stderr)
            return 1
        return 0

    return run


# --- data -------------------------------------------------------------------------------------------------------------


def config_of_argument(text: str) -> Config:
    """The config file of this name; for a dataset dict or HDF files, a config with these as `train`."""
    if os.path.isfile(text) and not text.endswith((".hdf", ".h5")):
        return load_config([text])
    return Config({"train": text})


def dataset_of_config(config: Config, name: str, log: Log) -> Dataset:
    """The dataset of the config's option `name`, or that the expression gives with the config's names."""
    for warning in config.warnings:
        log.v1(warning)
    if config.has(name):
        defaults = dataset_defaults(config, name)
        return init_dataset(config.literal(name), name=name, config=config, defaults=defaults, log=log)
    if name.isidentifier():
        raise ConfigError("--dataset", f"the config has no dataset `{name}`{did_you_mean(name, config.keys())}")
    return init_dataset(name if name.startswith("{") else f"config:{name}", config=config, log=log)


def dataset_of_options(config: str | None, dataset: str | None, log: Log) -> Dataset:
    """The dataset of the options --config FILE and --dataset NAME_OR_DICT, of which one may be missing."""
    if config is not None:
        return dataset_of_config(config_of_argument(config), dataset or "train", log)
    if dataset is None:
        raise ConfigError("--dataset", "either --config or --dataset must be given")
    return dataset_of_config(config_of_argument(dataset), "train", log)


def text_of_seq(dataset: Dataset, seq_idx: int, key: str) -> str:
    """The text of a sequence: of strings as they are, of bytes decoded, of other classes their labels."""
    array = dataset.get_data(seq_idx, key)
    if array.dtype.kind not in "iu":
        return str(array.item() if array.size == 1 else " ".join(map(str, array.ravel())))
    if key == "orth":
        return bytes(array.astype("uint8")).decode("utf8")
    labels = dataset.labels.get(key)
    if not labels:
        raise ConfigError("--key", f'"{key}" of {dataset.name} must be texts, or have labels')
    return " ".join(labels[i] for i in array.ravel())


# --- out --------------------------------------------------------------------------------------------------------------


class StderrTarget(Target):
    """The standard error stream: stdout is for what the tool gives."""

    def stream(self) -> TextIO | None:
        return sys.stderr


def stderr_log(verbosity: int) -> Log:
    """A log for messages beside the output."""
    return Log([StderrTarget(verbosity, "default")])


class Progress:
    """A line on the terminal that says how far the work is. Where stderr is a file, nothing is written."""

    def __init__(self, what: str):
        self.what, self.began, self.count, self._last = what, time.monotonic(), 0, 0.0
        self.shown = sys.stderr.isatty()

    def step(self, complete: float | None = None) -> None:
        """One more is done; `complete`: the fraction of all, in (0, 1]."""
        self.count += 1
        now = time.monotonic()
        if not self.shown or now - self._last < SECONDS_A_REPORT:
            return
        self._last = now
        share = "" if complete is None else f", {complete:.0%}"
        self._write(f"{self.count} {self.what}{share}, {now - self.began:.0f} s")

    def end(self) -> None:
        """Takes the line away."""
        if self.shown:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def follow(dataset: Dataset, indices: Iterator[int]) -> Iterator[int]:
    """The indices, with progress on the terminal."""
    progress = Progress("sequences")
    try:
        for i in indices:
            yield i
            progress.step(dataset.get_complete_frac(i))
    finally:
        progress.end()


@contextmanager
def output_file(path: str) -> Iterator[TextIO]:
    """A text file, gzip if its name ends in `.gz`, which gets its name only when all is written."""
    remove_abandoned(path, TEMPORARY)
    temporary = own_temporary(path, TEMPORARY)
    opened: Any = gzip.open if path.endswith(".gz") else open
    try:
        with opened(temporary, "wt", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    except OSError as exc:
        if exc.errno and exc.filename in (None, temporary):
            raise ConfigError(path, f"cannot be written: {exc.strerror}") from None
        raise
    finally:
        remove_if_there(temporary)
