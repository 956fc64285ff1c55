"""What imported stand-in modules refer to: the config that is loaded, and the network that runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from returnn_lite.running_config import running_config, set_running_config


@dataclass
class Running:
    """Set by who runs a config. Modules are shared by all code of the process; so is this, and only by them."""

    context: Any = None

    @property
    def config(self) -> Any:
        """The config that is loaded, if there is one."""
        return running_config()

    @config.setter
    def config(self, value: Any) -> None:
        set_running_config(value)

    @property
    def device(self) -> Any:
        """Where the network computes; the CPU without one."""
        return self._of("device")

    @property
    def generator(self) -> Any:
        """The network's random numbers."""
        return self._of("generator")

    @property
    def train(self) -> bool:
        """The train flag."""
        return bool(self._of("train"))

    def _of(self, name: str) -> Any:
        if self.context is None:
            # brings torch, which reading a config may do without
            self.context = importlib.import_module("returnn_lite.compat.tf").Context()
        return getattr(self.context, name)


RUNNING = Running()
