"""What a net of this suite is: its layers, the data it reads, and what is known of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from returnn_lite.tensor import Dim

Values = Mapping[str, torch.Tensor]  # data by key, parameters by name
TIME = Dim(None, "time")
LABELS = Dim(None, "labels")
IN = Dim(4, "in", kind="feature")
CLASSES = Dim(5, "classes", kind="feature")
SAME = {"same_dim_tags_as": {"T": TIME}}
FRAMEWISE = {"data": {"dim": 4, **SAME}, "classes": {"dim": 5, "sparse": True, **SAME}}
SEQUENCES = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
FRAMES = {"time": [5, 3, 4]}
APART = {"data": [5, 3, 4], "classes": [3, 2, 3]}


@dataclass
class Case:
    """A net, as a config describes it.

    `expected` gives the valid frames of "output" (B, T, …) from data and parameters. `moves`: whether the loops in it
    are run with and without layers moved out. `search`: it searches, too. `trains`: whether it has an objective.
    """

    layers: dict[str, Any]
    keys: dict[str, Any] = field(default_factory=lambda: FRAMEWISE)
    expected: Callable[[Values], torch.Tensor] | None = None
    lengths: dict[str, list[int]] = field(default_factory=lambda: FRAMES)
    config: dict[str, Any] = field(default_factory=dict)
    moves: bool = True
    search: bool = False
    trains: bool = True


def linear(source: Any, n_out: int = 3, activation: str | None = "tanh", **more: Any) -> dict[str, Any]:
    return {"class": "linear", "from": source, "n_out": n_out, "activation": activation, **more}


def loss(source: Any, **more: Any) -> dict[str, Any]:
    return {"class": "softmax", "from": source, "loss": "ce", "target": "classes", **more}


def evaluate(source: Any, code: Any, **more: Any) -> dict[str, Any]:
    return {"class": "eval", "from": source, "eval": code, **more}


def loop(unit: dict[str, Any], source: Any = "data", **more: Any) -> dict[str, Any]:
    return {"class": "rec", "from": source, "unit": unit, **more}


def choice(source: str = "prob", **more: Any) -> dict[str, Any]:
    return {"class": "choice", "from": source, "target": "classes", "beam_size": 3, "initial_output": 0, **more}


END = {"class": "compare", "from": "output", "value": 0}
