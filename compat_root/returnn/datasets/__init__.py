"""`init_dataset`: a dataset from a config's dict."""

from returnn_lite.compat.modules.client import init_dataset

__all__ = ["init_dataset"]
