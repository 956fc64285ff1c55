"""`log`: streams `v1` … `v5` to print to, which `log.init_by_config(config)` opens."""

from returnn_lite.compat.modules.client import LOG as log

__all__ = ["log"]
