"""`weight_averaging`: averages of the parameters over the run, for evaluation and for models that are used later."""

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from returnn_lite.config import Config
from returnn_lite.config.numbers import finite, whole
from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.optim.gradients import own_part
from returnn_lite.optim.optimizer import Optimizer
from returnn_lite.optim.state import SavedState, State

OPTION = "weight_averaging"
KINDS = ("ema", "swa", "thinc", "asgd")
TASKS = ("dev", "forward", "search")
INTERVALS = ("step", "epoch")
BUFFERS = ("copy", "average")


@dataclass(frozen=True)
class AveragingOptions:
    """The option's keys.

    kind: "ema": a = decay a + (1 - decay) w; "swa": the mean; "thinc": from 0 on, decay (1+n)/(10+n), at most 0.9999,
    or the optimizer's own average; "asgd": that of torch.ASGD. `every`, `interval`: when w is taken; from `start_epoch`
    and `start_step` (updates before) on. `buffers`: parameters that are not trained are the model's, or averaged, too.
    """

    kind: str
    decay: float = 0.999
    start_epoch: int = 1
    start_step: int = 0
    every: int = 1
    interval: str = "step"
    use_for: tuple[str, ...] = TASKS
    buffers: str = "copy"

    @classmethod
    def from_value(cls, value: ConfigValue, num_epochs: int) -> "AveragingOptions":
        """Checked, with the defaults of the kind."""
        if not isinstance(value, Mapping) or "kind" not in value:
            raise ConfigError(OPTION, f'must be a dict with "kind", but is {value!r} instead')
        for key in value:
            if key not in (*cls.__dataclass_fields__, "save_as"):
                hint = did_you_mean(key, cls.__dataclass_fields__)
                raise ConfigError(f'{OPTION}["{key}"]', f"unknown option{hint} ({', '.join(cls.__dataclass_fields__)})")
        given = {key: item for key, item in value.items() if key != "save_as" and item is not None}
        if given["kind"] == "swa":
            given = {"interval": "epoch", **given}
            if "start_epoch" not in given and given["interval"] == "epoch":
                given["start_epoch"] = max(int(0.75 * num_epochs), 1)
        for key, low in (("start_epoch", 1), ("start_step", 0), ("every", 1)):
            if key in given:
                given[key] = whole(f'{OPTION}["{key}"]', given[key], low)
        if "decay" in given:
            finite(f'{OPTION}["decay"]', given["decay"], low=0, high=1)
        use_for = given.get("use_for", TASKS)
        made = cls(**{**given, "use_for": (use_for,) if isinstance(use_for, str) else tuple(use_for)})
        made._check(value.get("save_as", "extra"))
        return made

    def _check(self, save_as: ConfigValue) -> None:
        choices = {"kind": KINDS, "interval": INTERVALS, "buffers": BUFFERS}
        wrong = [(key, getattr(self, key), names) for key, names in choices.items() if getattr(self, key) not in names]
        wrong += [("use_for", task, TASKS) for task in self.use_for if task not in TASKS]
        wrong += [("save_as", save_as, ("extra",))] if save_as != "extra" else []
        for key, value, names in wrong:
            wanted, hint = ", ".join(f'"{name}"' for name in names), did_you_mean(str(value), names)
            raise ConfigError(f'{OPTION}["{key}"]', f"must be one of {wanted}, but is {value!r} instead{hint}")


class WeightAveraging:
    """Averages by parameter name, in single precision or better. Until one is taken they are the initial values."""

    def __init__(
        self,
        options: AveragingOptions,
        params: Mapping[str, Tensor],
        optimizers: Iterable[Optimizer] = (),
        *,
        trained: Container[str] | None = None,
    ) -> None:
        self.options, self.optimizers = options, list(optimizers)
        if trained is None:
            trained = {name for name, param in params.items() if param.requires_grad}
        both = options.buffers == "average"
        taken = [name for name, p in params.items() if name in trained or both and p.is_floating_point()]
        self.params = {name: params[name].detach() for name in taken}
        self.averages = {name: _wide(param) for name, param in self.params.items()}
        self.updates = self.taken = 0  # updates of the model; values of w in the averages
        self.epoch = 0

    @classmethod
    def from_config(
        cls,
        config: Config,
        params: Mapping[str, Tensor],
        optimizers: Iterable[Optimizer],
        log: Log,
        *,
        trained: Container[str] | None = None,
    ) -> "WeightAveraging | None":
        """None if the option is not set. `trained`: names; default: those that require a gradient."""
        value = config.literal(OPTION, None)
        if not value:
            return None
        options = AveragingOptions.from_value(value, config.int("num_epochs", 5) or 0)
        made = cls(options, params, optimizers, trained=trained)
        log.v4(f"Weight averaging: {options.kind}, used for {', '.join(options.use_for) or 'nothing'}.")
        return made

    def start_epoch(self, epoch: int) -> None:
        """Tells the epoch, from 1 on."""
        self.epoch = epoch

    def after_update(self) -> None:
        """Takes the parameters as an update of the model left them."""
        self.updates += 1
        if self.options.interval == "step" and self._due(self.updates - 1 - self.options.start_step):
            self.take()

    def after_epoch(self) -> None:
        """Takes the parameters at the end of an epoch."""
        if self.options.interval == "epoch" and self._due(self.epoch - self.options.start_epoch):
            self.take()

    def _due(self, count: int) -> bool:
        late = self.epoch >= self.options.start_epoch and self.updates > self.options.start_step
        return late and count >= 0 and count % self.options.every == 0

    @torch.no_grad()
    def take(self) -> None:
        """Takes the present parameters into the averages."""
        own = self._of_optimizers()
        n, self.taken = self.taken, self.taken + 1
        for names in _by_device(self.averages):
            averages = [own_part(self.averages[name]) for name in names]
            values = [own_part(own.get(name, self.params[name])).to(self.averages[name].dtype) for name in names]
            if own or (n == 0 and self.options.kind != "thinc"):
                torch._foreach_copy_(averages, values)
            else:
                if n == 0:
                    torch._foreach_zero_(averages)
                torch._foreach_lerp_(averages, values, self._weight(n))

    def _of_optimizers(self) -> dict[str, Tensor]:
        """The averages that optimizers keep themselves."""
        if self.options.kind not in ("thinc", "asgd"):
            return {}
        found = {name: average for optimizer in self.optimizers for name, average in optimizer.averages().items()}
        if not found and self.options.kind == "asgd":
            raise ConfigError(f'{OPTION}["kind"]', '"asgd" needs the optimizer torch.ASGD')
        return found

    def _weight(self, n: int) -> float:
        """Of the new value, after n others."""
        if self.options.kind == "ema":
            return 1 - self.options.decay
        return 1 / (n + 1) if self.options.kind == "swa" else 1 - min((2 + n) / (11 + n), 0.9999)

    @contextmanager
    def in_place(self, task: str) -> Iterator[None]:
        """The averages as the parameters of the model, if they are to be used for this task and there are some."""
        if task not in self.options.use_for or not self.taken:
            yield
            return
        raw = {name: param.clone() for name, param in self.params.items()}
        self._put(self.averages)
        try:
            yield
        finally:
            self._put(raw)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, param in self.params.items():
            param.copy_(values[name])

    def model(self, params: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """All parameters of the averaged model; None as long as nothing was taken."""
        if not self.taken:
            return None
        return {name: self.averages.get(name, param).to(param.dtype) for name, param in params.items()}

    def state_dict(self) -> State:
        """Averages and counts."""
        counts = {"updates": self.updates, "taken": self.taken, "epoch": self.epoch}
        return {"kind": self.options.kind, **counts, "averages": dict(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: SavedState) -> None:
        """Takes over what fits; averages of another kind are left."""
        self.updates, self.epoch = state["updates"], state["epoch"]
        if state["kind"] != self.options.kind:
            return
        self.taken = state["taken"]
        for name, average in self.averages.items():
            saved = state["averages"].get(name)
            average.copy_(saved if saved is not None and saved.shape == average.shape else self.params[name])


def _wide(param: Tensor) -> Tensor:
    """A copy that counts in single precision at least."""
    return param.detach().clone() if param.dtype == torch.float64 else param.detach().float().clone()


def _by_device(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    groups: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((tensor.device, tensor.dtype), []).append(name)
    return list(groups.values())
