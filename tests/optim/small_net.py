"""A small net of two layers, and a training run on it, for tests of the updater."""

from collections.abc import Callable

import torch

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.optim import Updater

INPUTS = torch.randn(24, 8, 3, generator=torch.Generator().manual_seed(1))
NAMES = {"h/W": (3, 4), "h/b": (4,), "output/W": (4, 2), "output/b": (2,)}


def parameters() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in NAMES.items()}


def objective(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(x @ params["h/W"] + params["h/b"])
    return ((hidden @ params["output/W"] + params["output/b"]) ** 2).mean()


class Run:
    """A training run; `epoch` of two steps each."""

    def __init__(self, **config) -> None:
        self.params = parameters()
        self.config = Config(config)
        steps: Callable[[], int] = lambda: 2  # noqa: E731
        self.updater = Updater(
            self.params,
            self.config,
            param_options={},
            initial_learning_rate=0.1,
            log=Log.silent(),
            steps_per_epoch=steps,
        )
        self.step_number = 0
        self.rates: list[float] = []

    def epoch(self, epoch: int, learning_rate: float = 0.1, score: float | None = None) -> "Run":
        self.updater.start_epoch(epoch, score)
        for step in range(2):
            x = INPUTS[self.step_number]
            self.updater.step(
                objective(self.params, x), global_step=self.step_number, learning_rate=learning_rate, epoch_step=step,
                evaluate=lambda x=x: objective(self.params, x),
            )  # fmt: skip
            self.rates.append(self.updater.effective_learning_rate)
            self.step_number += 1
        self.updater.end_epoch()
        return self

    def epochs(self, last: int, **options) -> "Run":
        for epoch in range(1, last + 1):
            self.epoch(epoch, **options)
        return self

    def equals(self, other: "Run") -> bool:
        return all(torch.equal(param, other.params[name]) for name, param in self.params.items())
