"""Names that configs may import, define classes from and pass around, but not use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from returnn_lite.errors import ConfigError, did_you_mean, user_line


class Refusal(ConfigError, NotImplementedError):
    """Something that configs can import but that does not exist here; `path` is the line of the config that uses it."""


class _Refused(type):
    """The class of refused names: they are classes themselves, so that configs may derive classes from them."""

    refusal: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise Refusal(user_line(), cls.refusal)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Refusal(user_line(), cls.refusal)


def refused(name: str, reason: str) -> Any:
    """A stand-in for `name` that raises a Refusal with this reason when it, or a class made from it, is used."""
    return _Refused(name.rpartition(".")[2], (), {"refusal": f"{name}: {reason}", "made_at": ""})


def unknown(module: str, name: str, known: Iterable[str]) -> Any:
    """A stand-in for a name that a module lacks."""
    return refused(f"{module}.{name}", f"not supported{did_you_mean(name, known)}")


def is_refused(value: Any) -> bool:
    """Whether this is such a stand-in, or a class derived from one."""
    return isinstance(value, _Refused)
