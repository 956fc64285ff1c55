"""`BehaviorVersion`: the version of defaults that the running config was written for."""

from __future__ import annotations

from contextvars import ContextVar

from returnn_lite.errors import ConfigError

MINIMUM = 16  # of models in torch


class BehaviorVersion:
    """The option `behavior_version`; without it the minimum of what is used."""

    _VERSION: ContextVar[int | None] = ContextVar("behavior version", default=None)
    _LEAST: ContextVar[int] = ContextVar("least behavior version", default=0)

    @classmethod
    def get(cls) -> int:
        """The version that holds."""
        found = cls._VERSION.get()
        return cls._LEAST.get() if found is None else found

    @classmethod
    def get_if_set(cls) -> int | None:
        """The version if it was set."""
        return cls._VERSION.get()

    @classmethod
    def is_set(cls) -> bool:
        """Whether it was set, be it by a minimum."""
        return cls._VERSION.get() is not None

    @classmethod
    def set(cls, version: int) -> None:
        """Sets the version. ConfigError if it is below the minimum, or was set to another one before."""
        least, before = cls._LEAST.get(), cls._VERSION.get()
        if version < least:
            raise ConfigError("behavior_version", f"must be at least {least} here, but is {version} instead")
        if before not in (None, version):
            raise ConfigError("behavior_version", f"was set to {before} before, but is {version} now")
        cls._VERSION.set(version)

    @classmethod
    def set_min_behavior_version(cls, version: int) -> None:
        """Sets the least version. ConfigError if a lower one was set."""
        before = cls._VERSION.get()
        if before is not None and before < version:
            raise ConfigError("behavior_version", f"must be at least {version} here, but is {before} instead")
        cls._LEAST.set(max(version, cls._LEAST.get()))

    @classmethod
    def require(cls, condition: bool, message: str, version: int) -> None:
        """ConfigError with the message from a version on, if the condition does not hold."""
        if not condition and cls.get() >= version:
            raise ConfigError("behavior_version", f"{message} (from version {version} on)")

    @classmethod
    def _reset(cls, version: int | None = None) -> None:
        cls._VERSION.set(version)
        cls._LEAST.set(0)


def select_backend_torch() -> None:
    """The only backend; what it computes needs the behavior version 16 at least."""
    BehaviorVersion.set_min_behavior_version(MINIMUM)
