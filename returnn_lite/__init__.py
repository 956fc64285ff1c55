"""RETURNN's config language on PyTorch: datasets, layer networks, training, forward and search from one config file.

Importing this package is cheap: nothing heavy (torch, h5py, …) is loaded before a task needs it. For layers of one's
own, in a config or in a module that it imports, `returnn_lite.layer`, `Layer`, `LayerRef`, `Tensor`, `Spec` and `Dim`
are here.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FOR_LAYERS = {
    "layer": "returnn_lite.layers.core.registry",
    "Layer": "returnn_lite.layers.core.base",
    "LayerRef": "returnn_lite.layers.core.base",
    "Tensor": "returnn_lite.tensor",
    "Spec": "returnn_lite.tensor",
    "Dim": "returnn_lite.tensor",
}


def __getattr__(name: str) -> Any:
    """The names for layers of one's own, loaded at their first use."""
    if name in _FOR_LAYERS:
        return getattr(import_module(_FOR_LAYERS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
