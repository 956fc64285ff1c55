"""Thinc's optimizers by its own calls: `optimizer(key, weights, gradient)`, on numpy arrays or tensors, in place."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.optim.schedules import Constant, make_schedule
from returnn_lite.optim.thinc_optimizers import HYPER, ThincOptimizer, make_thinc

Array = np.ndarray | Tensor


class Optimizer:
    """SGD, Adam or RAdam with its hyper-parameters as schedules. ConfigError (in text) on wrong options.

    `schedules` {name: iterator}: from the first `step_schedules` on, each call takes the next item; until then the
    option's own value counts. `ops` is accepted and ignored.
    """

    kind: ClassVar[str] = "Optimizer"

    def __init__(
        self,
        learn_rate: ConfigValue,
        *,
        lookahead_k: int = 0,
        lookahead_alpha: float = 0.5,
        schedules: Mapping[str, Iterator[float]] | None = None,
        ops: Any = None,
        **options: ConfigValue,
    ) -> None:
        self.inner: ThincOptimizer = make_thinc(self.kind, {"learn_rate": learn_rate, **options}, self.kind)
        self.lookahead_k, self.lookahead_alpha = lookahead_k, lookahead_alpha
        self.iterators = {name: iter(values) for name, values in (schedules or {}).items()}
        for name in self.iterators:
            if name not in HYPER:
                raise ConfigError(f'schedules["{name}"]', f"must be one of {', '.join(HYPER)}")
        self.slow_weights: dict[str, Tensor] = {}

    def __call__(self, *args: Any, lr_scale: float = 1.0, key: Any = None) -> tuple[Array, Array]:
        """(key, weights, gradient) or (weights, gradient): updates the weights, and sets the gradient to 0."""
        if not isinstance(args[0], np.ndarray | Tensor):
            key, *args = args
        weights, gradient = args[0], args[1]
        lr_scale = args[2] if len(args) > 2 else lr_scale
        name = repr(key) if not isinstance(key, str) else key
        w, g = _tensor(weights), _tensor(gradient)
        if self.lookahead_k and name not in self.slow_weights:
            self.slow_weights[name] = w.clone()
        self.inner.update({name: w}, {name: g}, self.learn_rate, {name: lr_scale})
        if self.lookahead_k and self.inner.updates.get(name, 0) % self.lookahead_k == 0:
            w.copy_(self.slow_weights[name].lerp_(w, self.lookahead_alpha))
        if w.dim() == 0 or w.shape[0]:
            g.zero_()
        return weights, gradient

    def step_schedules(self) -> None:
        """On to the next step of all schedules."""
        self.inner.step += 1
        for name, iterator in self.iterators.items():
            value = next(iterator, None)
            if value is not None:
                self._set(name, float(value))

    def _set(self, name: str, value: float) -> None:
        if name == "learn_rate":
            self.inner.rate_schedule = Constant(value)
        else:
            self.inner.set_option(name, value)

    @property
    def learn_rate(self) -> float:
        """The learning rate at the present step; set, it is a constant."""
        rate = self.inner.own_rate()
        return 0.0 if rate is None else rate

    @learn_rate.setter
    def learn_rate(self, value: ConfigValue) -> None:
        self.inner.rate_schedule = make_schedule(value, "learn_rate")

    @property
    def last_score(self) -> tuple[int, float] | None:
        """(step, score), higher is better; set by the score alone."""
        return self.inner.last_score

    @last_score.setter
    def last_score(self, score: float) -> None:
        self.inner.last_score = (self.inner.step, score)

    @property
    def averages(self) -> dict[str, Tensor]:
        """Averaged weights by key."""
        return self.inner.averages()

    def to_gpu(self) -> None:
        """Moves the state to the GPU."""
        self._move("cuda")

    def to_cpu(self) -> None:
        """Moves the state to the CPU."""
        self._move("cpu")

    def _move(self, device: str) -> None:
        for tensors in (*self.inner.slots.values(), self.slow_weights):
            tensors.update({name: tensor.to(device) for name, tensor in tensors.items()})


def _tensor(array: Array) -> Tensor:
    """The same memory as a tensor."""
    return array.detach() if isinstance(array, Tensor) else torch.from_numpy(array)


class SGD(Optimizer):
    """w -= learn_rate g."""

    kind = "SGD"


class Adam(Optimizer):
    """Adam; epsilon is added to the root without bias correction."""

    kind = "Adam"

    def __init__(self, learn_rate: ConfigValue = 0.001, **options: ConfigValue) -> None:
        super().__init__(learn_rate, **options)


class RAdam(Adam):
    """Rectified Adam.  (Liu et al. 2020)"""

    kind = "RAdam"
