"""Reading config files (line, JSON, Python, YAML), command-line overrides, and typed access to the options."""

from returnn_lite.config.behavior import LATEST_BEHAVIOR, Behavior
from returnn_lite.config.config import Config
from returnn_lite.config.keys import (
    misspelt_keys,
    refuse_keys,
    refuse_unknown_overrides,
    warn_misspelt_keys,
)
from returnn_lite.config.load import export_runs, load_config, load_into, to_torch_runs
from returnn_lite.config.options import KNOWN_KEYS

__all__ = [
    "KNOWN_KEYS",
    "LATEST_BEHAVIOR",
    "Behavior",
    "Config",
    "load_config",
    "load_into",
    "misspelt_keys",
    "refuse_keys",
    "refuse_unknown_overrides",
    "export_runs",
    "to_torch_runs",
    "warn_misspelt_keys",
]
