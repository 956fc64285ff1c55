"""`Config`, and the one that the process works with."""

from returnn_lite.compat.modules.client import Config, get_global_config, set_global_config

__all__ = ["Config", "get_global_config", "set_global_config"]
