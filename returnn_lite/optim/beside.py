"""What changes parameters at an update beside the optimizer: decoupled constraints, functions of the config."""

import inspect
from collections.abc import Iterable, Mapping

from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigFunction
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.layers.core.params import ParamOptions
from returnn_lite.optim.gradients import Gradients


class BesideOptimizer:
    """`decouple_constraints` and `extra_updates`, on these parameters. `network`: for the functions."""

    def __init__(
        self, config: Config, params: Mapping[str, Tensor], options: Mapping[str, ParamOptions], network: object
    ) -> None:
        self.params, self.network = params, network
        self.factors = decoupled_decay(config, params, options)
        self.functions = extra_updates(config, params)

    def decay(self, names: Iterable[str]) -> None:
        """Before the update of these parameters: w -= w (2 L2)."""
        for name in self.factors.keys() & set(names):
            self.params[name].sub_(self.params[name] * self.factors[name])

    def update(self, grads: Gradients) -> None:
        """After the update: calls the functions of its parameters."""
        for name in grads.keys() & self.functions.keys():
            function = self.functions[name]
            offered = {"network": self.network, "grad": grads[name], "update_ops": []}
            wanted = inspect.signature(function).parameters
            function(var=self.params[name], **{key: value for key, value in offered.items() if key in wanted})


def decoupled_decay(config: Config, params: Iterable[str], options: Mapping[str, ParamOptions]) -> dict[str, float]:
    """Per parameter the part that `decouple_constraints` takes off each step: twice its layer's L2."""
    if not config.bool("decouple_constraints", False):
        return {}
    l2 = {name: options[name].l2 for name in params if name in options}
    return {name: 2 * factor for name, factor in l2.items() if factor}


def extra_updates(config: Config, params: Iterable[str]) -> dict[str, ConfigFunction]:
    """`extra_updates`: functions by parameter name that change their parameter in place after its update."""
    found = config.typed_value("extra_updates", None) or {}
    if not isinstance(found, Mapping):
        raise ConfigError("extra_updates", f"must be a dict of functions by parameter, but is {found!r} instead")
    for name in found:
        if name not in params:
            hint = did_you_mean(name, list(params))
            raise ConfigError(f'extra_updates["{name}"]', f"no trainable parameter has this name{hint}")
    return dict(found)
