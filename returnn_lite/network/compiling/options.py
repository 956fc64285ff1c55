"""The option `torch_compile`, and what the compiler says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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


@contextmanager
def explained(path: str, what: str) -> Iterator[None]:
    """What the compiler refuses inside is a ConfigError with this path; `what`: what cannot be compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # among torch's own modules
            for text in HARMLESS:
                warnings.filterwarnings("ignore", message=text)
            yield
    except ConfigError:
        raise
    except Exception as exc:
        if "out of memory" in str(exc):
            raise
        first = " ".join(str(exc).split("\n\n")[0].split())
        text = f"`{OPTION}` cannot compile {what} ({type(exc).__name__}: {first})"
        raise ConfigError(path, f"{text}; leave it out, or try another backend") from exc
