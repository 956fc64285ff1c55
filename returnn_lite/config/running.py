"""`running_config` under its former name."""

from returnn_lite.running_config import running_config, running_config_ctx, set_running_config

__all__ = ["running_config", "running_config_ctx", "set_running_config"]
