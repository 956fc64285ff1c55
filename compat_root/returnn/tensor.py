"""Axes and tensors as configs describe them."""

from returnn_lite.compat.modules.frontend import tensor_names

globals().update(tensor_names())
__all__ = sorted(tensor_names())
