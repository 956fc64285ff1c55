"""The log: messages of verbosity 1 (always worth seeing) to 5 (every step) to files, shell commands and stdout.

Config options: `log` (a target or a list of them: file path, `stdout`, `|shell command`; `$date` in a path is the UTC
start time), `log_verbosity` (1 … 5, default 3) and `log_format` (`default`/`raw`, `timed`, `verbose`), each one value
for all targets or a list with one per target. stdout is always added as the last target. Files are appended to.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.version import __version__


class Options(Protocol):
    """What the log needs of a config."""

    def list(self, key: str, default: ConfigValue = None) -> ConfigValue: ...


MAX_VERBOSITY = 5
DEFAULT_VERBOSITY = 3
# The digits before the literal S are the minutes once more, as in the reference's logs.
TIME_FORMAT = "%Y-%m-%d,%H:%M:%S.%MS"
DATE_FORMAT = "%Y-%m-%d-%H-%M-%S"
FORMATS = ("default", "raw", "timed", "verbose")
CLEAR = "\r\x1b[K"  # to the beginning of a terminal's line, which is emptied


class Target:
    """One place that messages go to: stdout. Writes messages of levels up to `verbosity`, line by line."""

    def __init__(self, verbosity: int, format: str) -> None:
        self.verbosity = verbosity
        self.format = format
        self.passing = False  # whether there is a line that the next message replaces

    def stream(self) -> TextIO | None:
        return sys.stdout  # looked up at each message: it may have been redirected meanwhile

    def write(self, level: int, text: str) -> None:
        stream = self.stream()
        if stream is None or level > self.verbosity:
            return
        prefix = line_prefix(self.format, level)
        clear, self.passing = CLEAR * self.passing, False
        stream.write(clear + "".join(f"{prefix}{line}\n" for line in text.split("\n")))
        stream.flush()

    def on_terminal(self) -> bool:
        """Whether somebody looks on who does not get a line for every step anyway."""
        stream = self.stream()
        return self.verbosity < MAX_VERBOSITY and stream is not None and stream.isatty()

    def write_passing(self, text: str) -> None:
        """On a terminal: a line that the next message replaces; "" for none."""
        stream = self.stream()
        if stream is not None and self.on_terminal() and (text or self.passing):
            stream.write(CLEAR + text[: shutil.get_terminal_size().columns - 1])
            stream.flush()
            self.passing = bool(text)

    def close(self) -> None:
        """Nothing to close: stdout belongs to the process."""


class LoggingTarget(Target):
    """The logger "returnn_lite" of the standard library: verbosities 1 to 3 are its INFO, 4 and 5 its DEBUG, warnings
    and errors of the training its WARNING."""

    def __init__(self) -> None:
        super().__init__(MAX_VERBOSITY, "default")
        self.logger = logging.getLogger("returnn_lite")

    @property
    def verbosity(self) -> int:
        """What the logger takes now."""
        if self.logger.isEnabledFor(logging.DEBUG):
            return MAX_VERBOSITY
        return DEFAULT_VERBOSITY if self.logger.isEnabledFor(logging.INFO) else 1

    @verbosity.setter
    def verbosity(self, value: int) -> None:
        """Of no effect: the logger decides."""

    def write(self, level: int, text: str) -> None:
        severity = logging.DEBUG if level > DEFAULT_VERBOSITY else logging.INFO
        if level == 1 and text.lower().startswith(("warning", "error", "model seems broken")):
            severity = logging.WARNING
        for line in text.split("\n"):
            self.logger.log(severity, "%s", line)


class FileTarget(Target):
    """A file, appended to and line-buffered. Its directory must be written out; it is made if there is none."""

    def __init__(self, path: str, verbosity: int, format: str) -> None:
        super().__init__(verbosity, format)
        self.path, self.fails = path, False
        if not os.path.dirname(path):
            where = f"a file in the working directory is written './{path}'; others: a path, 'stdout', '|command'"
            raise ConfigError("log", f"invalid log target {path!r}: {where}")
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.file = open(path, "a", buffering=1, encoding="utf-8")
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or exc
            raise ConfigError("log", f"invalid log target {path!r}: {why}") from exc

    def stream(self) -> TextIO | None:
        return None if self.file.closed else self.file

    def write(self, level: int, text: str) -> None:
        try:
            super().write(level, text)
        except OSError as exc:  # a full disk must not end the training for the sake of its log
            self._tell(exc)

    def close(self) -> None:
        try:
            self.file.close()
        except OSError as exc:
            self._tell(exc)

    def _tell(self, exc: OSError) -> None:
        if not self.fails:
            print(f"log target {self.path!r} cannot be written, messages are lost: {exc.strerror}", file=sys.stderr)
        self.fails = True


class PipeTarget(Target):
    """A shell command which reads the messages from its standard input."""

    def __init__(self, command: str, verbosity: int, format: str) -> None:
        super().__init__(verbosity, format)
        self.command = command
        self.process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, text=True, encoding="utf-8")

    def stream(self) -> TextIO | None:
        pipe = self.process.stdin
        return None if pipe is None or pipe.closed else pipe  # type: ignore[return-value]

    def write(self, level: int, text: str) -> None:
        try:
            super().write(level, text)
        except OSError:  # a command that ended early must not end the training
            print(f"log target '|{self.command}' has ended, it gets no further messages", file=sys.stderr)
            self._close_pipe()

    def close(self) -> None:
        """Ends the command's input and waits for the command."""
        self._close_pipe()
        self.process.wait()

    def _close_pipe(self) -> None:
        try:
            if self.process.stdin is not None:
                self.process.stdin.close()
        except OSError:
            pass


class Log:
    """Where messages go. `v1(text)` … `v5(text)` write to every target whose verbosity is at least that number."""

    def __init__(self, targets: Sequence[Target] = ()) -> None:
        self.targets = list(targets)

    @classmethod
    def from_config(cls, config: Options, *, files: bool = True) -> Log:
        """The targets that the options `log`, `log_verbosity` and `log_format` describe; without `files` of these only
        stdout."""
        names = [str(name) for name in config.list("log", [])]
        if "stdout" not in names:
            names.append("stdout")
        levels = _per_target("log_verbosity", config.list("log_verbosity", [DEFAULT_VERBOSITY]), names)
        formats = _per_target("log_format", config.list("log_format", ["default"]), names)
        checked = [
            (name, check_verbosity(level), check_format(format))
            for name, level, format in zip(names, levels, formats, strict=True)
        ]
        return cls([make_target(name, level, format) for name, level, format in checked if files or name == "stdout"])

    @classmethod
    def silent(cls) -> Log:
        """A log without targets."""
        return cls()

    @property
    def verbosity(self) -> int:
        """The highest verbosity of all targets: messages above it need not be composed."""
        return max((target.verbosity for target in self.targets), default=0)

    def write(self, level: int, text: str) -> None:
        """A message of the given level (1 … 5)."""
        for target in self.targets:
            target.write(level, text)

    @property
    def on_terminal(self) -> bool:
        """Whether `write_passing` is seen by anybody."""
        return any(isinstance(target, Target) and target.on_terminal() for target in self.targets)

    def write_passing(self, text: str) -> None:
        """A line about what goes on now, for terminals only; the next message replaces it."""
        for target in self.targets:
            if isinstance(target, Target):  # a program's own may only take messages
                target.write_passing(text)

    def v1(self, text: str) -> None:
        self.write(1, text)

    def v2(self, text: str) -> None:
        self.write(2, text)

    def v3(self, text: str) -> None:
        self.write(3, text)

    def v4(self, text: str) -> None:
        self.write(4, text)

    def v5(self, text: str) -> None:
        self.write(5, text)

    def close(self) -> None:
        """Closes files and waits for shell commands."""
        for target in self.targets:
            target.close()

    def __reduce__(self) -> tuple[type[Log], tuple[()]]:
        return type(self), ()  # a copy in another process is silent: only one process writes


def make_target(name: str, verbosity: int, format: str) -> Target:
    """The target that one entry of the option `log` names."""
    if name == "stdout":
        return Target(verbosity, format)
    if name.startswith("|"):
        return PipeTarget(name[1:].strip(), verbosity, format)
    return FileTarget(name.replace("$date", time.strftime(DATE_FORMAT, time.gmtime())), verbosity, format)


def line_prefix(format: str, level: int) -> str:
    """What stands before each line of a message of this level."""
    if format == "timed":
        return time.strftime(TIME_FORMAT) + " "
    if format == "verbose":
        return f"{'INFO' if level <= 2 else 'DEBUG'} - {time.strftime(TIME_FORMAT)} "
    return ""


def check_verbosity(value: ConfigValue) -> int:
    """A verbosity of the config as int; ConfigError unless it is one of 0 … 5."""
    try:
        level = int(value)
    except (TypeError, ValueError, OverflowError):
        level = -1
    if not 0 <= level <= MAX_VERBOSITY:
        raise ConfigError("log_verbosity", f"must be a number from 0 to {MAX_VERBOSITY}, but is {value!r} instead")
    return level


def check_format(value: ConfigValue) -> str:
    """A format of the config; ConfigError if there is none of that name."""
    if value not in FORMATS:
        raise ConfigError(
            "log_format",
            f"must be one of {', '.join(FORMATS)}, but is {value!r} instead{did_you_mean(str(value), FORMATS)}",
        )
    return str(value)


def _per_target(option: str, values: Sequence[ConfigValue], targets: Sequence[str]) -> list[ConfigValue]:
    """One value per target: a single one counts for all; the last one also for the added stdout."""
    if not values or len(values) > len(targets):
        raise ConfigError(option, f"must be one value or one per target ({len(targets)}), but is {values!r} instead")
    return [*values, *[values[-1]] * (len(targets) - len(values))]


def startup_text() -> str:
    """Version, time, process, directory and Python, on one line."""
    now = time.strftime(f"{DATE_FORMAT} (UTC%z)")
    python = f"{sys.executable} {sys.version.split()[0]}"
    return f"version {__version__}, date/time {now}, pid {os.getpid()}, cwd {working_directory()}, Python {python}"


def working_directory() -> str:
    """Its path; "?" where it is gone, or may not be read."""
    try:
        return os.getcwd()
    except OSError:
        return "?"


def log_greeting(log: Log, argv: Sequence[str]) -> None:
    """The first lines of a run."""
    log.v3(f"returnn_lite starting up, {startup_text()}")
    log.v4(f"returnn_lite command line options: {list(argv)!r}")
    log.v4(f"Hostname: {socket.gethostname()}")


def log_end(log: Log, start: float) -> None:
    """The last lines of a run; `start` as given by `time.time()`. `elapsed` is h:mm:ss.ffff."""
    seconds = max(0.0, time.time() - start)
    minutes, rest = divmod(seconds, 60)
    log.v3(f"elapsed: {int(minutes) // 60}:{int(minutes) % 60:02d}:{rest:07.4f}")
    log.v4("Quitting")
