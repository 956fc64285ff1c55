"""What a bad input is, the values that are put where others belong, and how a config is run on one."""

import contextlib
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from returnn_lite.cli import main
from returnn_lite.errors import ConfigError
from tests.engine.helpers import CONFIG_FILE

NAN, INF = float("nan"), float("inf")
# Types swapped, nothing, no numbers, negative and huge ones, other letters, nesting.
VALUES: tuple[Any, ...] = (
    NAN, "nonsense", "", -1, 0, -3, 10**30, 2.5, True, None, [], ["x"], [1, 2, 3, 4, 5, 6, 7], {}, {"a": 1}, (), "ü\n",
    [[1]], [None], {1: 2}, (2, -1), INF, b"x", {"class": "x"},
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A bad input: `arguments` of the command line in a folder with `files`, or something to `build` in this process.

    `names`: what the first line must say one of. `must_fail`: the value is known to be wrong; else it may be one that
    is fine, but there is never a traceback.
    """

    name: str
    names: tuple[str, ...] = ()
    must_fail: bool = True
    arguments: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    build: Callable[[], object] | None = None

    def run(self, folder: Path) -> tuple[int, str]:
        """Exit code, and what is on stderr. Exceptions of `build` other than ConfigError pass."""
        if self.build is None:
            return command(self.arguments, folder)
        try:
            self.build()
        except ConfigError as exc:
            return 1, str(exc)
        return 0, ""


def fault(case: Case, code: int, err: str) -> str:
    """What is wrong about the answer to a case; "" if it is as it must be."""
    first = (err.splitlines() or [""])[0]
    if "Traceback" in err:
        return f"a traceback: {err[-600:]}"
    if code == 0:
        return "taken silently" if case.must_fail else ""
    if code not in (1, 2) or not first.strip():
        return f"exit code {code}, first line {first!r}"
    if case.names and not any(name in first for name in case.names):
        return f"the first line names none of {case.names}: {first!r}"
    return ""


def command(arguments: Iterable[str], folder: Path) -> tuple[int, str]:
    """Exit code and stderr of the command line, run in this process within the folder."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    finally:
        os.chdir(before)
    return code, err.getvalue()


def config_case(name: str, lines: str, names: tuple[str, ...] = (), must_fail: bool = True) -> Case:
    """A whole config with these lines at its end, checked by `--check`."""
    content = (CONFIG_FILE + "log_verbosity = 1\n" + lines).encode("utf-8", "surrogateescape")
    return Case(name, names, must_fail, ("a.config", "--check"), {"a.config": content})


def literal(value: Any) -> str:
    """The value as Python text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return f"float({str(value)!r})"
    return repr(value)
