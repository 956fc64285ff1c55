"""What a learned learning rate is told of an epoch besides its scores: losses of its updates, norms of gradients."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from returnn_lite.engine.step import StepResult
from returnn_lite.optim.gradients import Gradients, dense

FACTS = "agent_epoch"  # the name of the meta entry


class EpochWatch:
    """Looks on while an epoch is trained.

    `measure`: the score that the agent looks at ("dev_score_output"): of several losses, the one of its name is taken.
    `mean_norms`: norms of gradients are means over the epoch's updates, else those of its last update.
    """

    def __init__(self, measure: Sequence[str] = (), *, mean_norms: bool = False) -> None:
        self.measure, self.mean_norms = measure, mean_norms

    def start(self, net: Any, updater: Any) -> None:
        """To be called before the first step of an epoch."""
        self.layers = layers_of(net.params)
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.scale: torch.Tensor | float = 1.0
        self.latest: Gradients = {}
        updater.observer = self.see_gradients

    def step(self, result: StepResult) -> None:
        """Takes the loss per frame of a step, before its update."""
        columns = {column: i for i, column in enumerate(result.columns)}
        names = [name for kind, name in result.columns if kind == "cost"]
        wanted = [name for name in names if any(key.endswith(f"score_{name}") for key in self.measure)] or names[:1]
        for name in wanted[:1]:
            self.losses.append(result.scores[columns["cost", name]] / result.scores[columns["inv_norm", name]])
        sums = [loss.inv_norm for loss in result.out.losses.values() if not loss.normalized]
        self.scale = max((float(frames) for frames in sums), default=1.0)

    def see_gradients(self, gradients: Gradients) -> None:
        """Takes the raw gradients of a step; of sums over frames they count per frame."""
        self.latest = gradients
        if self.mean_norms:
            self.norms.append(self._norms())

    def _norms(self) -> torch.Tensor:
        grads = dense(self.latest)
        squares = [
            sum((grads[name].square().sum() for name in names if name in grads), torch.zeros(()))
            for names in self.layers.values()
        ]
        return torch.stack([torch.as_tensor(square).cpu() for square in squares]).sqrt() / self.scale

    def finish(self) -> dict[str, Any]:
        """The meta entry of the epoch: {"grad_norms": a number per layer, "train_loss": mean over the updates,
        "train_noise": standard deviation over mean of the updates of its second half}."""
        losses = torch.stack(self.losses).double().cpu().numpy() if self.losses else numpy.zeros(1)
        norms = torch.stack(self.norms).mean(0) if self.norms else self._norms()
        self.latest, self.norms = {}, []
        second = losses[len(losses) // 2 :]
        with numpy.errstate(all="ignore"):
            noise = second.std() / second.mean()
        facts = {
            "grad_norms": [short(value) for value in norms.tolist()],
            "train_loss": short(losses.mean()),
            "train_noise": short(noise),
        }
        return {FACTS: facts}


def short(value: float) -> float:
    """The number with nine digits, as it is written to files: a run that reads it back goes on with the same."""
    return float(f"{float(value):.9g}") if math.isfinite(value) else float(value)


def layers_of(params: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """{layer: its trainable parameters}, in the order of construction; layers of sub-nets are layers of their own."""
    found: dict[str, list[str]] = {}
    for name, param in params.items():
        if param.requires_grad:
            found.setdefault(name.rpartition("/")[0], []).append(name)
    return found


def layer_sizes(params: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """{layer: number of its trainable numbers}."""
    return {layer: sum(params[name].numel() for name in names) for layer, names in layers_of(params).items()}
