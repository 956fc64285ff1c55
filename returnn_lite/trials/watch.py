"""What a learned learning rate is told of an epoch besides its scores: losses of its updates, norms of gradients."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.observer import Observer
from returnn_lite.engine.step import StepResult
from returnn_lite.optim.gradients import Gradients, dense
from returnn_lite.optim.updater import Updater
from returnn_lite.schedule.agent_options import AgentOptions

FACTS = "agent_epoch"  # the name of the meta entry


class EpochWatch(Observer):
    """Looks on while an epoch is trained.

    `measure`: the score that the agent looks at ("dev_score_output"): of several losses, the one of its name is taken.
    `mean_norms`: norms of gradients are means over the epoch's updates, else those of its last update.
    `paths`: looks at how the parameters move, too, for which it keeps three copies of them.
    """

    def __init__(self, measure: Sequence[str] = (), *, mean_norms: bool = False, paths: bool = False) -> None:
        self.measure, self.mean_norms, self.paths = measure, mean_norms, paths
        self.losses: list[torch.Tensor] = []

    @classmethod
    def of(cls, options: AgentOptions, config: Config) -> "EpochWatch":
        """What an agent with these options looks at."""
        default = config.list("learning_rate_control_error_measure", [])
        measures = [options.measure] if options.measure else [str(name) for name in default]
        return cls(measures, mean_norms=options.grad_norm == "mean", paths=options.sees_paths)

    def epoch_start(self, net: Model, updater: Updater) -> None:
        """Begins an epoch."""
        self.layers = layers_of(net.params)
        self.losses = []
        self.norms: list[torch.Tensor] = []
        self.scale: torch.Tensor | float = 1.0
        self.latest: Gradients = {}
        self.path = ParameterPath(updater.active) if self.paths else None

    def step(self, result: StepResult) -> None:
        """Takes the loss per frame of a step, before its update."""
        columns = {column: i for i, column in enumerate(result.columns)}
        names = [name for kind, name in result.columns if kind == "cost"]
        wanted = [name for name in names if any(key.endswith(f"score_{name}") for key in self.measure)] or names[:1]
        for name in wanted[:1]:
            self.losses.append(result.scores[[columns["cost", name], columns["inv_norm", name]]])
        sums = [loss.inv_norm for loss in result.out.losses.values() if not loss.normalized]
        self.scale = max((float(frames) for frames in sums), default=1.0) or 1.0

    def gradients(self, gradients: Gradients) -> None:
        """Takes the raw gradients of a step; of sums over frames they count per frame."""
        self.latest = gradients
        if self.path is not None:
            self.path.step(gradients)
        if self.mean_norms:
            self.norms.append(self._norms())

    def _norms(self) -> torch.Tensor:
        grads = dense(self.latest)
        squares = [
            sum((grads[name].square().sum() for name in names if name in grads), torch.zeros(()))
            for names in self.layers.values()
        ]
        return torch.stack([torch.as_tensor(square).cpu() for square in squares]).sqrt() / self.scale

    def epoch_end(self) -> dict[str, Any]:
        """The meta entry of the epoch: {"grad_norms": a number per layer, "train_loss": mean over the updates,
        "train_noise": standard deviation over mean of the updates of its second half}."""
        losses = mean_losses(self.losses)
        norms = torch.stack(self.norms).mean(0) if self.norms else self._norms()
        self.latest, self.norms = {}, []
        second = losses[len(losses) // 2 :]
        with np.errstate(all="ignore"):
            noise = second.std() / second.mean()
        third = max(len(losses) // 3, 1)
        with np.errstate(all="ignore"):
            trend = np.log(losses[:third].mean() / losses[-third:].mean())
        facts = {
            "grad_norms": [short(value) for value in norms.tolist()],
            "train_loss": short(losses.mean()),
            "train_noise": short(noise),
            "train_trend": short(trend),
            **(self.path.end() if self.path is not None else {}),
        }
        return {FACTS: facts}


def mean_losses(pairs: Sequence[torch.Tensor]) -> np.ndarray:
    """The steps' losses per frame, from (sum, number of frames); steps without frames are left out."""
    both = torch.stack(list(pairs)).cpu() if pairs else torch.zeros(0, 2)
    there = both[both[:, 1] != 0]
    return (there[:, 0] / there[:, 1]).double().numpy() if len(there) else np.zeros(1)


class ParameterPath:
    """The way of the parameters through an epoch."""

    def __init__(self, params: Mapping[str, torch.Tensor]) -> None:
        self.params = params
        self.first = self.last = flat(params.values())
        self.begun = False
        self.lengths: list[torch.Tensor] = []
        self.cosines: list[torch.Tensor] = []

    def step(self, gradients: Gradients) -> None:
        """Before an update: how its gradient lies to the update before."""
        now = flat(self.params.values())
        if self.begun:
            self._move(now, gradients)
        self.last, self.begun = now, True

    def _move(self, now: torch.Tensor, gradients: Gradients) -> None:
        moved = self.last - now
        length = torch.linalg.vector_norm(moved)
        grads = dense(gradients)
        slope = flat(grads[n] if n in grads else torch.zeros_like(p) for n, p in self.params.items())
        self.cosines.append(torch.dot(slope, moved) / (torch.linalg.vector_norm(slope) * length).clamp(min=1e-30))
        self.lengths.append(length)

    def end(self) -> dict[str, float]:
        """The numbers of the epoch."""
        now = flat(self.params.values())
        self.lengths.append(torch.linalg.vector_norm(self.last - now))
        distance, start = torch.linalg.vector_norm(now - self.first), torch.linalg.vector_norm(self.first)
        cosine = torch.stack(self.cosines).mean() if self.cosines else torch.zeros(())
        way = torch.stack(self.lengths).sum().clamp(min=1e-30)
        numbers = torch.stack([cosine.to(now.device), distance / way, distance / start.clamp(min=1e-30)]).tolist()
        return {key: short(x) for key, x in zip(("alignment", "straightness", "displacement"), numbers, strict=True)}


def flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All numbers in one vector, a copy."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


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
