"""`torch_compile`: the layers inside a loop compiled by torch.compile, tick by tick."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions
from returnn_lite.errors import ConfigError

OPTION = "torch_compile"
# Of the compiler: it looks through memoised functions, which are pure, and at gradients of whatever it meets.
HARMLESS = ("Dynamo detected a call to a `functools.lru_cache`", "The .grad attribute of a Tensor that is not a leaf")
OPTIONS = ("backend", "mode", "dynamic", "options", "fullgraph")


def compile_options(config: Config) -> ConfigOptions | None:
    """What torch.compile is given; None: nothing is compiled. Raises ConfigError for anything else than options."""
    value = config.typed_value(OPTION, None)
    if value is None and config.has(OPTION):
        value = config.bool(OPTION, False)
    if value is None or value is False:
        return None
    if value is True:
        return {}
    unknown = [k for k in value if k not in OPTIONS] if isinstance(value, Mapping) else [value]
    if unknown:
        text = f"`{OPTION}` must be True, False or a dict of {', '.join(OPTIONS)}, but is {value!r} instead"
        raise ConfigError(OPTION, text)
    return dict(value)


class CompiledTick:
    """`turn_all` of a loop, compiled from the second run on.

    The first run is not: it settles how axes are placed, which is no work for a compiler. `path`: that of the loop, for
    errors. Raises ConfigError if torch.compile refuses the options.
    """

    def __init__(self, turn_all: Callable[..., None], options: Mapping[str, Any], path: str) -> None:
        self._plain, self._path = turn_all, path
        self._is_first = True
        with self._explained():
            self._compiled: Callable[..., None] = torch.compile(turn_all, **options)

    @contextmanager
    def running(self) -> Iterator[Callable[..., None]]:
        """What computes the layers of a tick, for the ticks of one run; what the compiler refuses is a ConfigError."""
        if self._is_first:
            self._is_first = False
            yield self._plain
            return
        with warnings.catch_warnings(), self._explained():
            for text in HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            yield self._compiled

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except Exception as exc:
            if "out of memory" in str(exc):
                raise
            first = " ".join(str(exc).split("\n\n")[0].split())
            text = f"`{OPTION}` cannot compile what is inside of this loop ({type(exc).__name__}: {first})"
            raise ConfigError(self._path, f"{text}; leave it out, or try another backend") from exc
