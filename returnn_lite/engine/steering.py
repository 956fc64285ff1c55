"""Numbers of the optimizers, besides the learning rate, that a learned control sets before each epoch."""

from collections.abc import Mapping

from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.schedule.agent_options import GROUP, MOMENTUM


def settings_of(optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
    """Those that there are: {"momentum": the first one, "group:NAME": the multiple of a group's learning rate}."""
    found: dict[str, float] = {}
    for optimizer in optimizers.values():
        option = optimizer.momentum_option
        if option is not None:
            found.setdefault(MOMENTUM, float(optimizer.options()[option]))
        if optimizer.group_name and optimizer.learning_rate_absolute is None:
            found[GROUP + optimizer.group_name] = optimizer.rate_factor
    return found


def steer(optimizers: Mapping[str, Optimizer], settings: Mapping[str, float]) -> None:
    """Puts them in force; multiples that are not among `settings` are 1."""
    for optimizer in optimizers.values():
        optimizer.rate_factor = settings.get(GROUP + optimizer.group_name, 1.0) if optimizer.group_name else 1.0
        option = optimizer.momentum_option
        if option is not None and MOMENTUM in settings:
            optimizer.steered = frozenset({option})
            optimizer.set_option(option, settings[MOMENTUM])
