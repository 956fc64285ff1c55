"""Modules about layers and networks."""

from __future__ import annotations

import inspect
from typing import Any

from returnn_lite.compat.refusals import Refusal, is_refused, refused
from returnn_lite.compat.running import RUNNING
from returnn_lite.errors import user_line
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer

_GRAPH = "it is part of the TensorFlow graph; write a torch module and register it (see docs/own_layers.md)"
_GRAPH_CLASSES = ("LayerBase", "_ConcatInputLayer", "Loss", "RecSeqCellOp", "SearchChoices", "SelectSearchSourcesLayer")


def layers() -> dict[str, Any]:
    """`TFNetworkLayer`: classes to derive from, and what registers the derived ones."""
    return {
        **{name: refused(name, _GRAPH) for name in _GRAPH_CLASSES},
        "register_layer_class": register_layer_class,
        "auto_register_layer_classes": auto_register_layer_classes,
        "register_loss_class": lambda cls: cls,
    }


def register_layer_class(layer_class: Any) -> Any:
    """Registers a torch layer under its `layer_class`, or what says why a layer for TensorFlow cannot be built."""
    name = layer_class.__dict__.get("layer_class") or layer_class.__name__
    if not is_refused(layer_class):
        return layer(name)(layer_class)
    where = user_line()

    class Unbuildable(Layer):
        """A layer class of a config that works on TensorFlow's graph."""

        def __init__(self, **_options: Any) -> None:
            super().__init__()
            raise Refusal(
                "", f"layer class {name!r} is defined in the config by means of the TF graph API ({where});"
                " write it as a torch module and register it",
            )  # fmt: skip

    layer(name)(Unbuildable)
    return layer_class


def auto_register_layer_classes(vars_values: Any) -> None:
    """Registers all layer classes among these values (`globals().values()`)."""
    for value in list(vars_values.values() if isinstance(vars_values, dict) else vars_values):
        if inspect.isclass(value) and "layer_class" in value.__dict__ and value.__dict__["layer_class"]:
            register_layer_class(value)


def network() -> dict[str, Any]:
    """`TFNetwork`: classes to refer to."""
    return {
        "CannotHandleUndefinedSourcesException": type("CannotHandleUndefinedSourcesException", (Exception,), {}),
        "LayerNotFound": type("LayerNotFound", (Exception,), {}),
        "TFNetwork": refused("TFNetwork", _GRAPH),
        "ExternData": refused("ExternData", _GRAPH),
    }


def horovod() -> dict[str, Any]:
    """`TFHorovod`."""
    return {"get_ctx": get_ctx}


def get_ctx(config: Any = None) -> None:  # noqa: ARG001
    """None: there is no Horovod."""
    if RUNNING.config is not None and RUNNING.config.is_true("use_horovod"):
        raise Refusal("use_horovod", "training with Horovod is not supported")


def downloads() -> dict[str, Any]:
    """`returnn.import_`."""
    return {"import_": refused("import_", "needs to download code; not supported")}
