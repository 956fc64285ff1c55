"""Log targets, verbosities, formats."""

import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log, Target, log_end, log_greeting
from returnn_lite.version import __version__


def make(**options: Any) -> Log:
    return Log.from_config(Config(options))


def write_all(log: Log) -> None:
    for level in range(1, 6):
        getattr(log, f"v{level}")(f"message {level}")
    log.close()


def lines(*levels: int) -> str:
    return "".join(f"message {level}\n" for level in levels)


def test_default_is_stdout_with_verbosity_3(capsys: pytest.CaptureFixture[str]):
    log = make()
    assert log.verbosity == 3
    write_all(log)
    assert capsys.readouterr().out == lines(1, 2, 3)


@pytest.mark.parametrize("verbosity", [0, 1, 2, 3, 4, 5, "4", [2]])
def test_verbosity(verbosity: Any, capsys: pytest.CaptureFixture[str]):
    level = int(verbosity[0] if isinstance(verbosity, list) else verbosity)
    write_all(make(log_verbosity=verbosity))
    assert capsys.readouterr().out == lines(*range(1, level + 1))


def test_untyped_options(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    config = Config()
    config.set_text("log", f"{tmp_path}/a,{tmp_path}/b")
    config.set_text("log_verbosity", "1,5,2")
    write_all(Log.from_config(config))
    assert (tmp_path / "a").read_text() == lines(1)
    assert (tmp_path / "b").read_text() == lines(1, 2, 3, 4, 5)
    assert capsys.readouterr().out == lines(1, 2)


def test_files_are_appended_and_stdout_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "run.log"
    for _ in range(2):
        write_all(make(log=str(file), log_verbosity=1))
    assert file.read_text() == lines(1, 1)
    assert capsys.readouterr().out == lines(1, 1)


def test_stdout_is_not_added_twice(capsys: pytest.CaptureFixture[str]):
    write_all(make(log=["stdout"], log_verbosity=[1]))
    assert capsys.readouterr().out == lines(1)


def test_highest_verbosity_of_all_targets(tmp_path: Path):
    log = make(log=[str(tmp_path / "a")], log_verbosity=[5, 2])
    assert log.verbosity == 5
    log.close()


def test_lines_are_in_the_file_at_once(tmp_path: Path):
    log = make(log=str(tmp_path / "a"))
    log.v1("first")
    assert (tmp_path / "a").read_text() == "first\n"
    log.close()


def test_date(tmp_path: Path):
    make(log=str(tmp_path / "run.$date.log")).close()
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(r"run\.\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.log", file.name)


def test_shell_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = make(log=f"|tr a-z A-Z > {tmp_path}/upper", log_verbosity=2)
    write_all(log)
    assert (tmp_path / "upper").read_text() == lines(1, 2).upper()
    assert capsys.readouterr().out == lines(1, 2)


def test_a_shell_command_that_ends_does_not_end_the_run(capsys: pytest.CaptureFixture[str]):
    log = make(log="|true")
    pipe: Any = log.targets[0]
    pipe.process.wait()
    for _ in range(3):
        log.v1("text")
    log.close()
    captured = capsys.readouterr()
    assert captured.out == "text\n" * 3
    assert captured.err == "log target '|true' has ended, it gets no further messages\n"


def test_timed_format(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    moment = time.strptime("2026-11-20 19:39:17", "%Y-%m-%d %H:%M:%S")
    real = time.strftime
    monkeypatch.setattr(time, "strftime", lambda text, when=moment: real(text, when))
    make(log_format="timed").v1("a\nb")
    assert capsys.readouterr().out == "2026-11-20,19:39:17.39S a\n2026-11-20,19:39:17.39S b\n"


def test_verbose_format(capsys: pytest.CaptureFixture[str]):
    log = make(log_format="verbose", log_verbosity=5)
    write_all(log)
    kinds = [line.split(" - ")[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["INFO", "INFO", "DEBUG", "DEBUG", "DEBUG"]


def test_a_format_per_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = make(log=[str(tmp_path / "a")], log_format=["timed", "raw"])
    log.v1("text")
    log.close()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d,\d\d:\d\d:\d\d\.\d\dS text\n", (tmp_path / "a").read_text())
    assert capsys.readouterr().out == "text\n"


@pytest.mark.parametrize("options, message", [
    ({"log": "log"}, "log: invalid log target 'log': a file in the working directory is written './log'"),
    ({"log": "/dev/null/log"}, "log: invalid log target '/dev/null/log': "),
    ({"log_verbosity": float("inf")}, "log_verbosity: must be a number from 0 to 5, but is inf instead"),
    ({"log": "./"}, "log: invalid log target './': Is a directory"),
    ({"log_verbosity": 6}, "log_verbosity: must be a number from 0 to 5, but is 6 instead"),
    ({"log_verbosity": "high"}, "log_verbosity: must be a number from 0 to 5, but is 'high' instead"),
    ({"log_verbosity": [1, 2]}, "log_verbosity: must be one value or one per target (1), but is [1, 2] instead"),
    ({"log_format": "timd"}, 'log_format: must be one of default, raw, timed, verbose, but is \'timd\' instead; did'),
])  # fmt: skip
def test_errors(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert str(caught.value).startswith(message)


def test_silent(capsys: pytest.CaptureFixture[str]):
    log = Log.silent()
    assert log.verbosity == 0
    write_all(log)
    assert capsys.readouterr().out == ""


def test_a_copy_in_another_process_is_silent(tmp_path: Path):
    log = make(log=str(tmp_path / "a"))
    assert pickle.loads(pickle.dumps(log)).targets == []
    log.close()


def test_greeting(capsys: pytest.CaptureFixture[str]):
    log_greeting(make(log_verbosity=4), ["a.config", "++x", "1"])
    first, options, host = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"returnn_lite starting up, version {re.escape(__version__)}, "
        r"date/time \d{4}(-\d\d){5} \(UTC[+-]\d{4}\), pid \d+, cwd .+, Python .+",
        first,
    )
    assert options == "returnn_lite command line options: ['a.config', '++x', '1']"
    assert host.startswith("Hostname: ")


@pytest.mark.parametrize("seconds, text", [(3.2559, "0:00:03.2559"), (3725.5, "1:02:05.5000"), (0, "0:00:00.0000")])
def test_end(seconds: float, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0 + seconds)
    log_end(make(log_verbosity=4), 1000.0)
    assert capsys.readouterr().out == f"elapsed: {text}\nQuitting\n"


def test_the_folder_of_a_log_file_is_made(tmp_path: Path):
    path = tmp_path / "new" / "deep" / "log"
    log = make(log=str(path))
    log.v1("hello")
    log.close()
    assert path.read_text() == "hello\n"


def test_without_files_there_is_only_stdout(tmp_path: Path):
    config = Config({"log": [str(tmp_path / "log"), "|touch x"], "log_verbosity": [5, 4, 2]})
    log = Log.from_config(config, files=False)
    assert [(type(target), target.verbosity) for target in log.targets] == [(Target, 2)]
    assert not list(tmp_path.iterdir())
