"""Parameters seen through a function, such as noise on weights in training."""

from __future__ import annotations

from typing import Any, TypeVar

from returnn_lite.frontend.dropout import dropout
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.random import random_normal
from returnn_lite.frontend.run_ctx import get_run_ctx
from returnn_lite.frontend.types import UserFunction

M = TypeVar("M", bound=Module)
_OWN = "_parametrizations"


def register_parametrization(
    module: M, param_name: str, parametrization: UserFunction, *, keep_existing_param: bool = True
) -> M:
    """From now on `module.param_name` is what `parametrization` gives for the parameter; returns the module.

    keep_existing_param: the parameter stays, under its name. Else the parametrization, which may have parameters of its
    own, stands in its place: it is called without arguments, and setting calls its `assign`.
    """
    own = vars(module)
    if param_name not in own or not isinstance(own[param_name], Parameter):
        if is_parametrized(module, param_name):
            raise WrongUse(f"{param_name!r} of {module} is parametrized already")
        raise WrongUse(f"{param_name!r} of {module} must be a parameter, but is {own.get(param_name)!r} instead")
    if is_parametrized(module, param_name):
        raise WrongUse(f"{param_name!r} of {module} is parametrized already")
    if keep_existing_param and isinstance(parametrization, Module) and parametrization.has_parameters:
        raise WrongUse(f"the parametrization {parametrization} has parameters, which needs keep_existing_param=False")
    if not is_parametrized(module):
        own[_OWN] = {}
        cls = type(module)
        module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), {"__module__": cls.__module__})
    own[_OWN][param_name] = (parametrization, keep_existing_param, own[param_name])
    if not keep_existing_param:
        own[param_name] = parametrization
    setattr(type(module), param_name, _property(param_name))
    return module


def _property(name: str) -> property:
    def read(self: Any) -> Any:
        parametrization, keep, original = vars(self)[_OWN][name]
        return parametrization(vars(self)[name]) if keep else parametrization()

    def write(self: Any, value: Any) -> None:
        parametrization, keep, _ = vars(self)[_OWN][name]
        if keep:
            vars(self)[name] = value
        elif hasattr(parametrization, "assign"):
            parametrization.assign(value)
        else:
            raise WrongUse(f"{name!r} of {self} is parametrized by {parametrization}, which has no `assign`")

    return property(read, write)


def remove_parametrization(module: M, param_name: str) -> M:
    """`module.param_name` is the parameter again."""
    if not is_parametrized(module, param_name):
        raise WrongUse(f"{param_name!r} of {module} is not parametrized")
    own = vars(module)
    _, keep, original = own[_OWN].pop(param_name)
    delattr(type(module), param_name)
    if not keep:
        own[param_name] = original
    if not own[_OWN]:
        del own[_OWN]
        module.__class__ = type(module).__mro__[1]
    return module


def is_parametrized(module: Module, param_name: str | None = None) -> bool:
    """Whether a parameter, or any, is parametrized."""
    found = vars(module).get(_OWN)
    return found is not None and (param_name is None or param_name in found)


class WeightNoise:
    """In training noise of a standard deviation is added, drawn anew at every reading."""

    def __init__(self, std: float) -> None:
        self.std = std

    def __call__(self, param: Any) -> Any:
        """The parameter with noise."""
        if not get_run_ctx().is_train_flag_enabled(func=weight_noise):
            return param
        return param + random_normal(param.dims, dtype=param.dtype, device=param.device, stddev=self.std)


class WeightDropout:
    """In training entries are dropped, drawn anew at every reading."""

    def __init__(self, drop_prob: float) -> None:
        self.drop_prob = drop_prob

    def __call__(self, param: Any) -> Any:
        """The parameter with dropout."""
        training = get_run_ctx().is_train_flag_enabled(func=weight_dropout)
        return dropout(param, self.drop_prob, on_forward=True) if training else param


def weight_noise(module: M, param_name: str, *, std: float) -> M:
    """Noise on a parameter in training; returns the module."""
    return register_parametrization(module, param_name, WeightNoise(std))


def weight_dropout(module: M, param_name: str, *, drop_prob: float) -> M:
    """Dropout on a parameter in training; returns the module."""
    return register_parametrization(module, param_name, WeightDropout(drop_prob))
