"""RETURNN's config language on PyTorch: datasets, layer networks, training, forward and search from one config file.

Importing this package is cheap: nothing heavy (torch, h5py, …) is loaded before a name is used. As a library
(`docs/library.md`): `load` gives a trained model to call on arrays, `train` trains as the command line does, `Config`
and `Network` are what both are made of. For layers of one's own: `layer`, `Layer`, `LayerRef`, `Tensor`, `Spec`, `Dim`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from returnn_lite.version import __version__

if TYPE_CHECKING:
    from returnn_lite.config import Config
    from returnn_lite.layers.core.base import Layer, LayerRef
    from returnn_lite.layers.core.registry import layer
    from returnn_lite.library import Model, load, train
    from returnn_lite.network import Network
    from returnn_lite.tensor import Dim, Spec, Tensor

__all__ = [
    "Config",
    "Dim",
    "Layer",
    "LayerRef",
    "Model",
    "Network",
    "Spec",
    "Tensor",
    "__version__",
    "layer",
    "load",
    "train",
]

_MODULES = {
    "Config": "returnn_lite.config",
    "Model": "returnn_lite.library",
    "load": "returnn_lite.library",
    "train": "returnn_lite.library",
    "Network": "returnn_lite.network",
    "layer": "returnn_lite.layers.core.registry",
    "Layer": "returnn_lite.layers.core.base",
    "LayerRef": "returnn_lite.layers.core.base",
    "Tensor": "returnn_lite.tensor",
    "Spec": "returnn_lite.tensor",
    "Dim": "returnn_lite.tensor",
}


def __getattr__(name: str) -> Any:
    """The public names, loaded at their first use; `Network` also fills the registries of layers and losses."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Network":
        import_module("returnn_lite.catalog")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
