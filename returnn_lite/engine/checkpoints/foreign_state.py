"""Optimizer states that RETURNN's torch backend wrote, as those of a training here."""

from __future__ import annotations

import torch

from returnn_lite.config_value import ConfigDict, ConfigOptions
from returnn_lite.optim.state import SavedState, State
from returnn_lite.schedule import lr_file

RATES = ("lr", "initial_lr")


def is_foreign(state: SavedState) -> bool:
    """Whether this is torch's own state dict of one optimizer, with the parameters' names beside it."""
    optimizer = state.get("optimizer")
    return isinstance(optimizer, dict) and {"state", "param_groups"} <= set(optimizer) and "param_names" in state


def translated(state: SavedState) -> State:
    """The state with the values of each parameter by its name.

    Parameters are numbered over all groups in the order of `param_names`. Learning rates and scores stay those of the
    learning-rate file. Raises ValueError if numbers and names do not agree.
    """
    groups, names = state["optimizer"]["param_groups"], list(state["param_names"])
    numbers = [number for group in groups for number in group["params"]]
    if len(numbers) != len(names):
        raise ValueError(f"{len(numbers)} parameters, but {len(names)} names")
    known = state["optimizer"]["state"]
    slots = {name: dict(known[number]) for number, name in zip(numbers, names, strict=True) if number in known}
    shapes = {name: _shape(values) for name, values in slots.items()}
    kind = str(state.get("optimizer_class_name", ""))
    common = {
        "class": f"torch.{kind}" if hasattr(torch.optim, kind) else kind,
        "slots": slots,  # of all groups: others may have been made of the parameters since
        "shapes": shapes,
        "group": {},
    }
    by_number = dict(zip(numbers, names, strict=True))
    optimizers = {
        f"group {i}": {**common, "params": [by_number[n] for n in group["params"]], "options": _options(group)}
        for i, group in enumerate(groups)
    }
    made = {"optimizers": optimizers, "accumulated": {}}
    return {**state, "optimizer": made, "learning_rates": lr_file.to_text({})}


def _options(group: ConfigDict) -> ConfigOptions:
    """The numbers among the options of one of torch's groups, but for learning rates."""
    options = {key: value for key, value in group.items() if isinstance(value, int | float) and key not in RATES}
    return options | {f"beta{i}": beta for i, beta in enumerate(group.get("betas") or (), start=1)}


def _shape(values: SavedState) -> list[int]:
    """The parameter's shape: that of the values kept per number of it, not of counters."""
    tensors = [value for key, value in values.items() if isinstance(value, torch.Tensor) and key != "step"]
    largest = max(tensors, key=torch.Tensor.numel, default=torch.zeros(()))
    return list(largest.shape)
