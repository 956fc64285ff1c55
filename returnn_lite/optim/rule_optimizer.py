"""A `Rule` is the formula of an update; an `Optimizer` is a rule with its state, for any number of parameters."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.state import SavedState, State

Tensors = list[Tensor]


def _update(rule: "Rule", w: Tensors, g: Tensors, rate: float, *slots: Tensors) -> None:
    """The update itself."""
    raise NotImplementedError(f"{type(rule).__name__}.update")


def _update_rows(rule: "Rule", w: Tensor, rows: Tensor, g: Tensor, rate: float, *slots: Tensor) -> None:
    """For a gradient g (N, …) of `rows` (N, each at most once), zero elsewhere. Here: as if it were dense."""
    rule.update([w], [dense_rows(w, rows, g)], rate, *([slot] for slot in slots))


class Rule:
    """One update formula. The keyword arguments of `__init__` are its options in the config.

    `update` works in place on lists of parameters `w`, their gradients `g` (never changed) and one list per slot.
    """

    name: ClassVar[str] = ""  # in the config
    slots: Mapping[str, float] = {}  # state tensors like the parameter -> their initial value
    bases: Mapping[str, float] = {}  # numbers b of which `rate` needs b^t, t = updates so far including this one
    given: ConfigDict = {}  # the arguments it was made with

    def __new__(cls, **options: ConfigValue) -> "Rule":
        """Keeps the arguments."""
        rule = super().__new__(cls)
        rule.given = options
        return rule

    def options(self) -> ConfigOptions:
        """All arguments, with those left at their defaults."""
        accepted = inspect.signature(type(self).__init__).parameters.values()
        return {p.name: p.default for p in accepted if p.kind is p.KEYWORD_ONLY} | dict(self.given)

    def rate(self, lr: float, powers: Mapping[str, float]) -> float:
        """The step size of this update."""
        return lr

    # Each with one argument a slot.
    update: Callable[..., None] = _update
    update_rows: Callable[..., None] = _update_rows


class LazyRule(Rule):
    """A row-sparse gradient leaves all other rows of parameter and state as they are."""

    def update_rows(self, w: Tensor, rows: Tensor, g: Tensor, rate: float, *slots: Tensor) -> None:
        tensors = [w, *slots]
        parts = [tensor.index_select(0, rows) for tensor in tensors]  # (V, …) -> (N, …)
        self.update(parts[:1], [g], rate, *([part] for part in parts[1:]))
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.index_copy_(0, rows, part)


def dense_rows(w: Tensor, rows: Tensor, g: Tensor) -> Tensor:
    """(N, …) at `rows` -> a tensor like w, zero elsewhere."""
    return torch.zeros_like(w).index_copy_(0, rows, g)


RULES: dict[str, type[Rule]] = {}
R = TypeVar("R", bound=type[Rule])


def optimizer(*names: str) -> Callable[[R], R]:
    """Registers a rule under its config names; they are lower case, without "optimizer" at the end."""

    def register(rule: R) -> R:
        rule.name = names[0]
        RULES.update((name, rule) for name in names)
        return rule

    return register


class RuleOptimizer(Optimizer):
    """A rule, its state by parameter name, and the common count of updates (as powers of the rule's `bases`)."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.name = rule.name
        self.slots: dict[str, Tensors] = {}
        self.reset()

    def options(self) -> ConfigOptions:
        return self.rule.options()

    def set_option(self, name: str, value: float) -> None:
        if name not in self.rule.options():
            raise KeyError(name)
        if self.rule.given.get(name) != value:
            slots = list(self.rule.slots)
            self.rule = type(self.rule)(**{**self.rule.given, name: value})
            if list(self.rule.slots) != slots:  # such as a momentum that is no longer 0
                self.slots = {}

    def reset(self) -> None:
        """Forgets all state: the next update is the first."""
        self.slots = {}
        self.powers = dict.fromkeys(self.rule.bases, 1.0)

    @torch.no_grad()
    def apply(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> None:
        """One update of the parameters that have a gradient: a dense one, or a sparse COO tensor of rows.

        Where rows are no case of their own a sparse gradient is made dense; else it is coalesced, which waits for the
        device.
        """
        if not grads:
            return
        grads = {name: grad.to_dense() if grad.is_sparse and self._sums_rows else grad for name, grad in grads.items()}
        self.powers = {key: _float32_product(self.powers[key], base) for key, base in self.rule.bases.items()}
        rate = self.rule.rate(lr, self.powers)
        for names in _alike([name for name, grad in grads.items() if not grad.is_sparse], params):
            slots = zip(*(self._slots_of(name, params[name]) for name in names), strict=True)
            w, g = [params[name] for name in names], [grads[name] for name in names]
            self.rule.update(w, g, rate, *map(list, slots))
        for name, grad in grads.items():
            if grad.is_sparse:
                grad, w = grad.coalesce(), params[name]
                self.rule.update_rows(w, grad.indices()[0], grad.values(), rate, *self._slots_of(name, w))

    @property
    def _sums_rows(self) -> bool:
        """Whether a row-sparse gradient counts as the dense one."""
        return type(self.rule).update_rows is Rule.update_rows

    def _slots_of(self, name: str, w: Tensor) -> Tensors:
        if name not in self.slots:
            layout = torch.preserve_format
            self.slots[name] = [torch.full_like(w, start, memory_format=layout) for start in self.rule.slots.values()]
        return self.slots[name]

    def state_dict(self) -> State:
        """Class, powers, and {parameter: {slot: tensor}}."""
        slots = {name: dict(zip(self.rule.slots, tensors, strict=True)) for name, tensors in self.slots.items()}
        return {"class": self.rule.name, "powers": dict(self.powers), "slots": slots}

    @torch.no_grad()
    def load_state_dict(self, state: SavedState, params: Mapping[str, Tensor]) -> list[str]:
        """Takes over what fits the parameters; returns the names of those whose state starts anew."""
        self.reset()
        self.powers.update((key, value) for key, value in state["powers"].items() if key in self.powers)
        for name, w in params.items():
            saved = state["slots"].get(name)
            if saved is not None and all(key in saved and saved[key].shape == w.shape for key in self.rule.slots):
                # full_like first: the parameter's device, type and layout
                self.slots[name] = [torch.empty_like(w).copy_(saved[key]) for key in self.rule.slots]
        return [name for name in state["slots"] if name in params and name not in self.slots]


def _float32_product(a: float, b: float) -> float:
    return float(np.float32(a) * np.float32(b))


def _alike(names: Iterable[str], params: Mapping[str, Tensor]) -> list[list[str]]:
    """Names grouped by device and type: what one fused operation takes."""
    groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name in names:
        groups.setdefault((params[name].device, params[name].dtype), []).append(name)
    return list(groups.values())
