"""The command line: parsing, exit codes, what goes to stderr."""

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from returnn_lite import cli
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError, ConfigErrors
from returnn_lite.log import Log
from returnn_lite.version import __version__

ROOT = Path(__file__).resolve().parent.parent
Task = Callable[[Config, Log], None]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], None]:
    """Puts a function in the place of the tasks."""

    def replace(run_task: Task) -> None:
        module = types.ModuleType("returnn_lite.tasks")
        module.run_task = lambda config, log, check=False: run_task(config, log)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "returnn_lite.tasks", module)

    return replace


def run_with(task: Any, argv: list[str]) -> Config:
    """The config that the task gets."""
    seen: list[Config] = []
    task(lambda config, log: seen.append(config))
    assert cli.main(argv) == 0
    return seen[0]


# Parsing


@pytest.mark.parametrize("argv, files, overrides", [
    (["a"], ["a"], []),
    (["a", "b", "++x", "1", "++y", "2"], ["a", "b"], [("x", "1"), ("y", "2")]),
    (["++x", "1"], [], [("x", "1")]),
    (["a", "++x", "+-1"], ["a"], [("x", "-1")]),
    (["a", "++x", "+1"], ["a"], [("x", "+1")]),
    (["a", "++x", "++y"], ["a"], [("x", "++y")]),
    (["a", "-b", "10"], ["a"], [("batch_size", "10")]),
    (["a", "-b10"], ["a"], [("batch_size", "10")]),
    (["a", "--batch_size", "10"], ["a"], [("batch_size", "10")]),
    (["a", "--batch_size=10"], ["a"], [("batch_size", "10")]),
    (["a", "--learning=1"], ["a"], [("learning_rate", "1")]),
    (["a", "-v", "5", "-z", "3"], ["a"], [("log_verbosity", "5"), ("max_seqs", "3")]),
    (["a", "--verbose=5", "--max_sequences", "3"], ["a"], [("log_verbosity", "5"), ("max_seqs", "3")]),
    (["a", "-r", "+-1"], ["a"], [("learning_rate", "-1")]),
    (["a", "-r", "-1"], ["a"], [("learning_rate", "-1")]),
    (["a", "++x", "1", "-b", "10", "++y", "2"], ["a"], [("batch_size", "10"), ("x", "1"), ("y", "2")]),
    (["--config", "b", "-E", "e", "-e", "3"], [], [("include", "b"), ("eval", "e"), ("epoch", "3")]),
    (["a", "++x", ""], ["a"], [("x", "")]),
    (["a", "++x", "a b,c"], ["a"], [("x", "a b,c")]),
])  # fmt: skip
def test_parsing(argv: list[str], files: list[str], overrides: list[tuple[str, str]]):
    command = cli.parse_command_line(argv)
    assert (command.files, command.overrides, command.show) == (files, overrides, "")


@pytest.mark.parametrize("argv, code, message", [
    ([], 1, "expected at least a config file"),
    (["a", "++x"], 1, "expect (++key, value) config tuples in remaining args"),
    (["a", "++x", "1", "++y"], 1, "expect (++key, value) config tuples in remaining args"),
    (["a", "+x", "1"], 1, "expect key prefixed with '++', but got '+x'"),
    (["a", "-b", "1", "x:1", "y"], 1, "expect key prefixed with '++', but got 'x:1'"),
    (["a", "-b", "1", "b.config"], 1, "expect key prefixed with '++', but got 'b.config'"),
    (["a", "++", "1"], 1, "expect key prefixed with '++'"),
    (["a", "++x", "-1"], 2, "error: no such option: -1"),
    (["a", "--unknown"], 2, "error: no such option: --unknown"),
    (["a", "-b"], 2, "error: -b option requires 1 argument"),
    (["a", "--bx=1"], 2, "error: no such option: --bx"),
    (["a", "--l=1"], 2, "error: ambiguous option: --l "),
])  # fmt: skip
def test_wrong_command_line(argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert "usage: rnn.py CONFIG" in captured.err


# Text


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["a.config", "--help"]])
def test_help_is_complete(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    for short, name, _, _ in cli.OPTIONS:
        assert f" --{name} " in text
        assert not short or f" -{short} " in text
    assert "{" not in text.replace("{'data': 4000, 'classes': 400}", "")
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("argv", [["-V"], ["--version"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"returnn_lite version {__version__}, date/time ") and text.count("\n") == 1
    assert all(word in text for word in (", pid ", ", cwd ", ", Python "))


# Running


def test_the_task_gets_config_and_log(task: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.py").write_text("n = 1\nname = 'abc'\nlog_verbosity = 4\n")
    config = run_with(task, [str(tmp_path / "a.py"), "++n", "2", "++name", "5", "++epoch", "3"])
    assert (config.typed["n"], config.typed["name"], config.int("epoch", 0)) == (2, "5", 3)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("returnn_lite starting up, ")
    assert out[1].startswith("returnn_lite command line options: [")
    assert out[-2].startswith("elapsed: 0:00:") and out[-1] == "Quitting"


def test_warnings_of_the_command_line_are_logged(task: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.py").write_text("n = 1\nlog_verbosity = 1\n")
    run_with(task, [str(tmp_path / "a.py"), "++n", "a b"])
    assert capsys.readouterr().out.startswith(
        "WARNING: can't evaluate config param 'a b' to previous type: <class 'int'>"
    )


def test_device_of_the_environment_wins(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.py").write_text("device = 'gpu'\n")
    assert run_with(task, [str(tmp_path / "a.py")]).value("device", None) == "gpu"
    monkeypatch.setenv("TF_DEVICE", "cpu")
    assert run_with(task, [str(tmp_path / "a.py"), "++device", "gpu"]).value("device", None) == "cpu"


def fail(task: Any, exc: BaseException, *argv: str) -> int:
    def raise_it(config: Config, log: Log) -> None:
        raise exc

    task(raise_it)
    return cli.main(list(argv) or ["++epoch", "1"])


@pytest.mark.parametrize("exc, text", [
    (ConfigError("batch_size", "must be set"), "batch_size: must be set\n"),
    (ConfigErrors([ConfigError("a", "is bad"), ConfigError("b", "too")]), "a: is bad\nb: too\n"),
    (FileNotFoundError("no file"), "FileNotFoundError: no file\n"),
    (NotImplementedError("not here"), "NotImplementedError: not here\n"),
    (KeyboardInterrupt(), "KeyboardInterrupt\n"),
])  # fmt: skip
def test_expected_errors_are_one_line(task: Any, exc: BaseException, text: str, capsys: pytest.CaptureFixture[str]):
    assert fail(task, exc) == 1
    assert capsys.readouterr().err == text


def test_internal_errors_keep_the_traceback_behind_the_first_line(task: Any, capsys: pytest.CaptureFixture[str]):
    assert fail(task, RuntimeError("shapes differ")) == 1
    err = capsys.readouterr().err
    assert err.startswith("RuntimeError: shapes differ\nTraceback (most recent call last):\n")


@pytest.mark.parametrize("verbosity", ["5", "1,5", "5,1"])
def test_traceback_at_verbosity_5(task: Any, verbosity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = str(tmp_path / "log")
    assert fail(task, ConfigError("a", "is bad"), "++log", log, "++log_verbosity", verbosity) == 1
    assert capsys.readouterr().err.startswith("a: is bad\nTraceback (most recent call last):\n")


def test_the_log_ends_properly_after_an_error(task: Any, capsys: pytest.CaptureFixture[str]):
    assert fail(task, ConfigError("a", "is bad"), "++log_verbosity", "4") == 1
    assert capsys.readouterr().out.endswith("Quitting\n")


def test_exit_of_a_task_passes(task: Any):
    with pytest.raises(SystemExit) as caught:
        fail(task, SystemExit(7))
    assert caught.value.code == 7


@pytest.mark.parametrize("argv, text", [
    (["nothing.config"], "config file not found: 'nothing.config'\n"),
    (["++log", "plain"], "log: invalid log target 'plain': "),
    (["++log_verbosity", "9"], "log_verbosity: must be a number from 0 to 5, but is '9' instead\n"),
    (["++log_verbosity", "high"], "log_verbosity: must be a number from 0 to 5, but is 'high' instead\n"),
])  # fmt: skip
def test_set_up_errors(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert err.startswith(text) and "\n" not in err.rstrip("\n")


def test_wrong_override_of_a_bool(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.py").write_text("a_bool = True\n")
    assert cli.main([str(tmp_path / "a.py"), "++a_bool", "false"]) == 1
    assert capsys.readouterr().err.startswith("a_bool: cannot evaluate 'false': NameError")


# The real program


def rnn(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "rnn.py"), *argv], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("argv, code", [
    ((), 1),
    (("--help",), 0),
    (("-V",), 0),
    (("nothing.config",), 1),
    (("a.config", "++x", "-1"), 2),
    (("a.config", "--unknown"), 2),
    (("a.config", "++x"), 1),
])  # fmt: skip
def test_exit_codes(argv: tuple[str, ...], code: int, tmp_path: Path):
    done = rnn(*argv, cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_the_module_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "returnn_lite", "-V"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("returnn_lite version ")
