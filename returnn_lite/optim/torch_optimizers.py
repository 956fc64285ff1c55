"""Optimizers of torch.optim, and of any package that builds upon it, by name or dotted path."""

import copy
import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config.numbers import finite
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.fused import can_be_fused
from returnn_lite.optim.optimizer import Evaluate, Optimizer
from returnn_lite.optim.state import SavedState, State

TORCH: dict[str, type[torch.optim.Optimizer]] = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}
PREFIXES = ("torch.optim.", "torch.", "optim.")
SPARSE_UNCHECKED = torch.sparse.check_sparse_tensor_invariants(enable=False)  # else torch warns that it does not
EXTRA = "pytorch_optimizer"  # of the optional extra "optimizers"


def torch_class(name: str) -> type[torch.optim.Optimizer] | None:
    """The class of torch.optim, in any case of letters; None if there is none."""
    return next((cls for known, cls in TORCH.items() if known.lower() == name.lower()), None)


def imported_class(name: str, path: str) -> type[torch.optim.Optimizer]:
    """The class behind a dotted path. ConfigError unless it can be imported and is a torch optimizer."""
    module, _, attribute = name.rpartition(".")
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        extra = '; install the extra "optimizers"' if module.split(".")[0] == EXTRA else ""
        raise ConfigError(path, f"cannot import {module!r}: {error}{extra}") from None
    found = getattr(package, attribute, None)
    if found is None:
        classes = [key for key, value in vars(package).items() if isinstance(value, type)]
        raise ConfigError(path, f"{module} has no class {attribute!r}{did_you_mean(attribute, classes)}")
    if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
        raise ConfigError(path, f"{name} must be a sub-class of torch.optim.Optimizer, but is {found!r} instead")
    return found


def takes_rows(cls: type, options: ConfigDict) -> bool:
    """Whether a row-sparse gradient is handed on as it is: where torch can use it, and numbers do not depend on it."""
    if cls is torch.optim.SparseAdam:
        return True
    plain = not any(options.get(key) for key in ("weight_decay", "momentum", "fused", "maximize"))
    return cls in (torch.optim.SGD, torch.optim.Adagrad) and plain


class TorchOptimizer(Optimizer):
    """A torch optimizer with the options of a config dict, by their torch names; the learning rate is not one."""

    def __init__(
        self,
        cls: type[torch.optim.Optimizer],
        options: ConfigDict,
        *,
        path: str = "optimizer",
        closure: bool = False,
    ) -> None:
        self.cls, self.given, self.path = cls, dict(options), path
        builtin = cls.__module__.startswith("torch.optim.")
        self.name = f"torch.{cls.__name__}" if builtin else f"{cls.__module__}.{cls.__qualname__}"
        self.needs_closure = closure or cls is torch.optim.LBFGS
        self.takes_rows = takes_rows(cls, options)
        self.bind({"": torch.zeros(2, 2, requires_grad=True)})  # errors of the options are found now

    def bind(self, params: Mapping[str, Tensor]) -> None:
        self.params = dict(params)
        self.torch = self._make()

    def _make(self) -> torch.optim.Optimizer:
        rate: ConfigOptions = {"lr": 1.0} if "lr" in inspect.signature(self.cls).parameters else {}
        kernel: ConfigOptions = {"fused": True} if self._fused_by_default() else {}
        try:
            return self.cls(list(self.params.values()), **rate, **kernel, **self.given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(self.path, f"{self.name}: {str(error).splitlines()[0]}") from None

    def _fused_by_default(self) -> bool:
        """Whether one kernel makes the update, which torch does when asked; where the options say nothing of that."""
        said = self.given.keys() & {"fused", "foreach", "capturable", "differentiable"}
        return self.cls in (torch.optim.Adam, torch.optim.AdamW) and not said and can_be_fused([*self.params.values()])

    @property
    def group(self) -> ConfigOptions:
        """Torch's one group, in which all parameters are."""
        return self.torch.param_groups[0]

    def options(self) -> ConfigOptions:
        """As torch has them, and `betas` one by one."""
        found = {key: value for key, value in self.group.items() if key in self.torch.defaults and key != "lr"}
        betas = found.get("betas")
        return found | {f"beta{i}": beta for i, beta in enumerate(betas or (), start=1)}

    def set_option(self, name: str, value: float) -> None:
        if name not in self.options():
            raise KeyError(name)
        if name in self.group:
            self.group[name] = value
        else:  # "beta1", "beta2"
            betas = list(self.group["betas"])
            betas[int(name.removeprefix("beta")) - 1] = value
            self.group["betas"] = tuple(betas)

    def apply(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> None:
        if not grads:
            return
        self.group["lr"] = lr
        with self._gradients(grads), self._explained(), SPARSE_UNCHECKED:
            self.torch.step()

    def apply_closure(self, params: Mapping[str, Tensor], evaluate: Evaluate, lr: float) -> None:
        self.group["lr"] = lr

        def closure() -> Any:  # torch says float, and passes on what it gets: a tensor, for which nothing waits
            self._set_gradients({})  # those of the last call would be added to
            loss, grads = evaluate()
            self._set_gradients(grads)
            return loss.detach()

        with self._gradients({}), self._explained():
            self.torch.step(closure)

    def _set_gradients(self, grads: Mapping[str, Tensor]) -> None:
        for name, param in self.params.items():
            grad = grads.get(name)
            if grad is not None and grad.is_sparse:
                grad = grad.coalesce() if self.takes_rows else grad.to_dense()
            param.grad = grad

    @contextmanager
    def _gradients(self, grads: Mapping[str, Tensor]) -> Iterator[None]:
        """The parameters' `grad` for the time of a step."""
        self._set_gradients(grads)
        try:
            yield
        finally:
            self._set_gradients({})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Torch's refusal of a gradient as an error of the config."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            dense = [name for name, p in self.params.items() if p.grad is not None and not p.grad.is_sparse]
            if self.cls is torch.optim.SparseAdam and dense:
                text = f"takes only weights of sparse input (their gradients are row-sparse), not {', '.join(dense)}"
                raise ConfigError(self.path, f"{self.name} {text}; choose others by `param_groups`") from None
            raise ConfigError(self.path, f"{self.name}: {str(error).splitlines()[0]}") from error

    def averages(self) -> dict[str, Tensor]:
        """ASGD's."""
        state = {name: self.torch.state.get(param, {}) for name, param in self.params.items()}
        return {name: values["ax"] for name, values in state.items() if isinstance(values.get("ax"), Tensor)}

    def reset(self) -> None:
        options = {key: value for key, value in self.group.items() if key in self.torch.defaults}
        self.torch = self._make()
        self.group.update(options)

    def state_dict(self) -> State:
        """Class, {parameter: its state}, shapes of the parameters, and what else the group remembers."""
        slots = {name: dict(self.torch.state[p]) for name, p in self.params.items() if p in self.torch.state}
        shapes = {name: list(param.shape) for name, param in self.params.items()}
        return {"class": self.name, "slots": slots, "shapes": shapes, "group": self._remembered(self.group)}

    def _remembered(self, group: ConfigDict) -> ConfigOptions:
        """Entries of a group that are neither options nor parameters; some packages count steps there."""
        return {key: value for key, value in group.items() if key not in self.torch.defaults and key != "params"}

    def load_state_dict(self, state: SavedState, params: Mapping[str, Tensor]) -> list[str]:
        """Options stay those of the config."""
        self.reset()
        fitting = {
            name: values
            for name, values in state["slots"].items()
            if name in self.params and state["shapes"][name] == list(self.params[name].shape)
        }
        indices = {name: i for i, name in enumerate(self.params)}
        slots = {indices[name]: copy.deepcopy(values) for name, values in fitting.items()}
        group = {**self.group, **self._remembered(state["group"]), "params": list(indices.values())}
        self.torch.load_state_dict({"state": slots, "param_groups": [group]})
        return [name for name in state["slots"] if name in self.params and name not in fitting]


def make_torch(cls: type[torch.optim.Optimizer], options: ConfigDict, path: str) -> TorchOptimizer:
    """With options checked against the constructor's; `epsilon`, `beta1`, `beta2` may stand for torch's names."""
    given = dict(options)
    closure = bool(given.pop("closure", False))
    accepted = {k: p for k, p in inspect.signature(cls).parameters.items() if k not in ("params", "lr")}
    if "eps" in accepted and "epsilon" in given:
        given["eps"] = given.pop("epsilon")
    _betas(given, accepted)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for key in given:
        if key not in accepted and not open_ended:
            hint = did_you_mean(key, accepted)
            raise ConfigError(
                f'{path}["{key}"]', f"{cls.__name__} has no such option{hint} (options: {', '.join(accepted)})"
            )
        if key in accepted:
            _check_value(f'{path}["{key}"]', given[key], accepted[key].default)
    if given.get("differentiable"):
        raise ConfigError(f'{path}["differentiable"]', "must be False: nothing differentiates through the update here")
    return TorchOptimizer(cls, given, path=path, closure=closure)


def _check_value(path: str, value: ConfigValue, default: ConfigValue) -> None:
    """ConfigError unless a value is of the kind of the default: a finite number, some of them, or a bool."""
    if value is None or isinstance(value, Tensor):
        return
    if isinstance(default, bool):
        if not isinstance(value, bool) and value not in (0, 1):
            raise ConfigError(path, f"must be True or False, but is {value!r} instead")
    elif isinstance(default, int | float):
        finite(path, value)
    elif isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            raise ConfigError(path, f"must be {len(default)} numbers, but is {value!r} instead")
        for item in value:
            if item is not None and not isinstance(item, Tensor):
                finite(path, item)


def _betas(given: ConfigOptions, accepted: Mapping[str, inspect.Parameter]) -> None:
    """beta1 and beta2, either or both, as `betas`."""
    if "betas" not in accepted or not {"beta1", "beta2"} & given.keys():
        return
    betas = list(given.get("betas", accepted["betas"].default))
    for i, name in enumerate(("beta1", "beta2")):
        betas[i] = given.pop(name, betas[i])
    given["betas"] = tuple(betas)
