"""Which kind of model a config describes."""

from returnn_lite.config import Config
from returnn_lite.engine.models.model import ModelSource
from returnn_lite.engine.models.network_source import NetworkSource
from returnn_lite.engine.models.torch_source import TorchSource

LAYERS, TORCH = ("network", "get_network"), ("get_model", "train_step", "forward_step")


def model_source(config: Config) -> ModelSource:
    """The source for what the config describes: a torch module by `get_model`, or a net of layers."""
    given = {name for name in (*LAYERS, *TORCH) if config.typed_value(name) is not None}
    if given.isdisjoint(LAYERS):
        return TorchSource(config) if given else NetworkSource(config)
    both = "get_model" in given and config.value("backend", None) == "torch"  # for which there is an error
    return TorchSource(config) if both else NetworkSource(config)
