"""Thinc's optimizers: SGD, Adam and RAdam with clipping, L2 and averages per tensor; any number is a schedule."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from returnn_lite.config.numbers import finite
from returnn_lite.config_value import ConfigDict, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.schedules import Constant, Schedule, Score, make_schedule
from returnn_lite.optim.state import SavedState, State

HYPER = ("learn_rate", "beta1", "beta2", "eps", "L2", "grad_clip")
DEFAULTS: ConfigOptions = {"eps": 1e-8, "L2": 0.0, "grad_clip": 1.0, "L2_is_weight_decay": True, "use_averages": True}
BETAS = {"beta1": 0.9, "beta2": 0.999}
# Class -> its options. SGD takes no betas and no eps.
CLASSES: dict[str, ConfigOptions] = {
    "SGD": {key: value for key, value in DEFAULTS.items() if key != "eps"},
    "Adam": {**DEFAULTS, **BETAS},
    "RAdam": {**DEFAULTS, **BETAS},
    "Optimizer": {**DEFAULTS, **BETAS, "use_radam": False},
}
ALIASES = {"weight_decay": "L2", "epsilon": "eps", "learning_rate": "learn_rate", "lr": "learn_rate"}
SLOTS = ("mom1", "mom2", "average")


class ThincOptimizer(Optimizer):
    """The rule by the betas of the moment: RAdam if so chosen, Adam if both are above 0, SGD if beta2 is 0.

    `learn_rate` None: it comes from outside. Tensors count their own updates (n), schedules all of them together.
    """

    def __init__(self, name: str, hyper: Mapping[str, Schedule | None], options: ConfigDict) -> None:
        self.name = f"thinc.{name}"
        self.hyper = {key: hyper.get(key) or Constant(1e-8 if key == "eps" else 0.0) for key in HYPER[1:]}
        self.rate_schedule = hyper.get("learn_rate")
        self.use_radam = name == "RAdam" or bool(options.get("use_radam", False))
        self.l2_is_decay, self.use_averages = bool(options["L2_is_weight_decay"]), bool(options["use_averages"])
        self.fixed = {key: s.rate for key, s in self.hyper.items() if isinstance(s, Constant)}
        self._check(self.fixed.get("beta1", 1.0), self.fixed.get("beta2", 1.0))
        self.step = 0
        self.last_score: Score | None = None
        self.reset()

    @staticmethod
    def _check(beta1: float, beta2: float) -> None:
        if beta1 == 0 and beta2 != 0:
            raise ValueError("beta1 must not be 0 if beta2 is not (with both 0 the rule is that of SGD)")

    # --- hyper-parameters ---------------------------------------------------------------------------------------------

    def values(self) -> dict[str, float]:
        """All hyper-parameters but the learning rate at the present step."""
        return {key: schedule(self.step, self.last_score) for key, schedule in self.hyper.items()}

    def own_rate(self) -> float | None:
        return None if self.rate_schedule is None else self.rate_schedule(self.step, self.last_score)

    def options(self) -> ConfigOptions:
        values = self.values()
        return values if values["beta2"] or self.use_radam else {"L2": values["L2"], "grad_clip": values["grad_clip"]}

    def set_option(self, name: str, value: float) -> None:
        name = ALIASES.get(name, name)
        if name not in self.hyper:
            raise KeyError(name)
        self.hyper[name] = Constant(value)

    def start_epoch(self, epoch: int, score: float | None) -> None:
        if score is not None:
            self.last_score = (self.step, -score if self.plateau_score == "min" else score)

    # --- updates ------------------------------------------------------------------------------------------------------

    def apply(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> None:
        if grads:
            self.update(params, grads, lr)
            self.step += 1

    def skip(self) -> None:
        self.step += 1

    def scheduled(self) -> dict[str, float]:
        return {key: value for key, value in self.values().items() if not isinstance(self.hyper[key], Constant)}

    @torch.no_grad()
    def update(
        self,
        params: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        lr: float,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        """`apply` without a step of the schedules. `scales`: factors on the learning rate, not used by RAdam."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in grads:
            if params[name].dim() == 0 or params[name].shape[0]:
                self.updates[name] = self.updates.get(name, 0) + 1
                w, scale = params[name], (scales or {}).get(name, 1.0)
                groups.setdefault((self.updates[name], scale, w.device, w.dtype), []).append(name)
        values = self.values()
        self._check(values["beta1"], values["beta2"])
        for (n, scale, *_), names in groups.items():
            g = [grads[name].to_dense() if grads[name].is_sparse else grads[name] for name in names]
            self._update([params[name] for name in names], g, names, n, lr, scale, values)

    def _update(
        self,
        w: list[Tensor],
        g: list[Tensor],
        names: list[str],
        n: int,
        lr: float,
        scale: float,
        h: Mapping[str, float],
    ) -> None:
        """One update of tensors that all are at their n-th."""
        if h["L2"] and not self.l2_is_decay:
            g = list(torch._foreach_add(g, w, alpha=h["L2"]))
        if h["grad_clip"]:
            g = clipped(g, h["grad_clip"])
        if self.use_radam or h["beta2"]:
            self._adaptive(w, g, names, n, lr, scale, h)
        else:
            torch._foreach_add_(w, g, alpha=-scale * lr)
        if h["L2"] and self.l2_is_decay:  # of the weights as they are after the update
            torch._foreach_mul_(w, 1.0 - scale * lr * h["L2"])
        if self.use_averages:
            decay = min((1 + n) / (10 + n), 0.9999)
            torch._foreach_lerp_(self._slots("average", names, w), w, 1 - decay)

    def _adaptive(
        self,
        w: list[Tensor],
        g: list[Tensor],
        names: list[str],
        n: int,
        lr: float,
        scale: float,
        h: Mapping[str, float],
    ) -> None:
        """Adam and RAdam. The betas count in single precision, and so does 1 - beta."""
        beta1, beta2, one = np.float32(h["beta1"]), np.float32(h["beta2"]), np.float32(1)
        m, v = self._slots("mom1", names, w), self._slots("mom2", names, w)
        torch._foreach_mul_(m, float(beta1))
        torch._foreach_add_(m, g, alpha=float(one - beta1))
        torch._foreach_mul_(v, float(beta2))
        torch._foreach_addcmul_(v, g, g, float(one - beta2))
        if self.use_radam:
            rho, size = self._radam_step(n + 1, h["beta1"], h["beta2"])
            if rho < 5:
                torch._foreach_add_(w, m, alpha=-size * lr)
                return
            rate = size * lr
        else:
            rate = scale * lr * math.sqrt(1 - h["beta2"] ** n) / (1 - h["beta1"] ** n)
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, h["eps"])
        torch._foreach_addcdiv_(w, m, root, -rate)

    def _radam_step(self, u: int, beta1: float, beta2: float) -> tuple[float, float]:
        """(rho, step size) of count u, which runs one ahead of n. Ten of them are kept, for all tensors: one that comes
        later to the same u takes what the betas of then gave.  (Liu et al. 2020)"""
        known = self.sizes.get(u % 10)
        if known is None or known[0] != u:
            power, full = beta2**u, 2 / (1 - beta2) - 1
            rho = full - 2 * u * power / (1 - power)
            size = 1 / (1 - beta1**u)
            if rho >= 5:
                size *= math.sqrt((1 - power) * (rho - 4) / (full - 4) * (rho - 2) / rho * full / (full - 2))
            known = self.sizes[u % 10] = [u, rho, size]
        return known[1], known[2]

    def _slots(self, slot: str, names: list[str], w: list[Tensor]) -> list[Tensor]:
        """The state tensors, from zeros on."""
        own = self.slots[slot]
        for name, param in zip(names, w, strict=True):
            if name not in own:
                own[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return [own[name] for name in names]

    def averages(self) -> dict[str, Tensor]:
        return dict(self.slots["average"])

    # --- state --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        self.updates: dict[str, int] = {}
        self.sizes: dict[int, list[Any]] = {}
        self.slots: dict[str, dict[str, Tensor]] = {slot: {} for slot in SLOTS}

    def state_dict(self) -> State:
        slots = {slot: dict(tensors) for slot, tensors in self.slots.items()}
        counts = {"updates": dict(self.updates), "sizes": dict(self.sizes)}
        return {"class": self.name, **counts, "slots": slots, **self.position()}

    def position(self) -> State:
        schedules = {key: schedule.state() for key, schedule in self._schedules().items()}
        return {"step": self.step, "last_score": self.last_score, "schedules": schedules}

    def load_position(self, position: SavedState) -> None:
        self.step, score = position["step"], position["last_score"]
        self.last_score = None if score is None else (score[0], score[1])
        for key, schedule in self._schedules().items():
            if key in position["schedules"]:
                schedule.load(position["schedules"][key])

    def _schedules(self) -> dict[str, Schedule]:
        rate = {} if self.rate_schedule is None else {"learn_rate": self.rate_schedule}
        return {**self.hyper, **rate}

    @torch.no_grad()
    def load_state_dict(self, state: SavedState, params: Mapping[str, Tensor]) -> list[str]:
        self.reset()
        self.load_position(state)
        self.sizes = {int(slot): list(entry) for slot, entry in state["sizes"].items()}
        for slot, tensors in state["slots"].items():
            fitting = {name: t for name, t in tensors.items() if name in params and t.shape == params[name].shape}
            self.slots[slot] = {name: torch.empty_like(params[name]).copy_(t) for name, t in fitting.items()}
        others = [
            name
            for t in state["slots"].values()
            for name in t
            if name in params and t[name].shape != params[name].shape
        ]
        self.updates = {name: n for name, n in state["updates"].items() if name in params and name not in others}
        return list(dict.fromkeys(others))


def clipped(g: list[Tensor], limit: float) -> list[Tensor]:
    """Every tensor scaled to this norm, if its own is not below."""
    norms = torch.stack(torch._foreach_norm(g))
    factors = torch.where(norms >= limit, limit / norms, torch.ones_like(norms))
    return list(torch._foreach_mul(g, list(factors.unbind())))


def thinc_name(text: str) -> str | None:
    """ "SGD.v1", "Adam", "radam" -> the class's name; None if it is none of Thinc's."""
    wanted = text.removesuffix(".v1").lower()
    return next((name for name in CLASSES if name.lower() == wanted), None)


def make_thinc(name: str, options: ConfigDict, path: str) -> ThincOptimizer:
    """With options checked. `weight_decay` is L2 as weight decay."""
    given = {}
    known = {**CLASSES[name], "learn_rate": None}
    for key, value in options.items():
        key = ALIASES.get(key, key)
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(
                f'{path}["{key}"]', f"thinc.{name} has no such option{hint} (options: {', '.join(known)})"
            )
        given[key] = value
    if "weight_decay" in options:
        given["L2_is_weight_decay"] = True
    values = {**known, **given}
    for key in ("L2_is_weight_decay", "use_averages", "use_radam"):
        if key in values:
            values[key] = _truth(values[key], f'{path}["{key}"]')
    hyper = {k: make_schedule(values[k], f'{path}["{k}"]') for k in HYPER if values.get(k) is not None}
    for key, schedule in hyper.items():
        if isinstance(schedule, Constant):
            finite(f'{path}["{key}"]', schedule.rate, low=0, below=1 if key in BETAS else None)
    try:
        return ThincOptimizer(name, hyper, values)
    except ValueError as error:
        raise ConfigError(path, f"thinc.{name}: {error}") from None


def _truth(value: ConfigValue, path: str) -> bool:
    """A bool, also as the word that a .cfg file may have."""
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool | int):
        raise ConfigError(path, f"must be True or False, but is {value!r} instead")
    return bool(value)
