"""What programs that work with configs import: the running config, the log.

Configs find it under `returnn.config`, `returnn.log`; scripts of other programs in `compat_root/returnn`.
"""

from __future__ import annotations

import sys
from typing import Any

from returnn_lite.compat.running import RUNNING
from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.running_config import running_config_ctx


def config_names() -> dict[str, Any]:
    """`returnn.config`."""
    return {
        "Config": Config,
        "get_global_config": get_global_config,
        "global_config_ctx": running_config_ctx,
        "set_global_config": set_global_config,
    }


def log_names() -> dict[str, Any]:
    """`returnn.log`."""
    return {"log": LOG}


def get_global_config(raise_exception: bool = True, **_options: Any) -> Config | None:
    """The config that is running."""
    if RUNNING.config is None and raise_exception:
        raise RuntimeError("no config has been loaded yet")
    return RUNNING.config  # type: ignore[no-any-return]


def set_global_config(config: Config) -> None:
    """Makes this the config that is running."""
    RUNNING.config = config


class Streams:
    """`log`: a stream for each verbosity, `v1` to `v5`, and `error`; all stdout until `init_by_config`."""

    def __init__(self) -> None:
        self._log: Log | None = None

    def init_by_config(self, config: Config) -> None:
        """Opens the targets of the options `log`, `log_verbosity` and `log_format`."""
        self._log = Log.from_config(config)

    def __getattr__(self, name: str) -> Any:
        levels = {"v1": 1, "v2": 2, "v3": 3, "v4": 4, "v5": 5, "error": 1}
        if name not in levels:
            raise AttributeError(name)
        return sys.stdout if self._log is None else _Stream(self._log, levels[name])


class _Stream:
    """What `print(…, file=log.v3)` writes to; a line is a message."""

    def __init__(self, log: Log, level: int) -> None:
        self._log, self._level, self._line = log, level, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log.write(self._level, line)
        return len(text)

    def flush(self) -> None:
        """Lines are written at once; what has no end yet waits for it."""


LOG = Streams()
