"""Optimizer states that RETURNN's torch backend wrote, as those of a training here."""

from __future__ import annotations

import torch

from returnn_lite.optim.state import SavedState, State
from returnn_lite.schedule import lr_file


def is_foreign(state: SavedState) -> bool:
    """Whether this is torch's own state dict of one optimizer, with the parameters' names beside it."""
    optimizer = state.get("optimizer")
    return isinstance(optimizer, dict) and {"state", "param_groups"} <= set(optimizer) and "param_names" in state


def translated(state: SavedState) -> State:
    """The state with the values of each parameter by its name.

    Parameters are numbered over all groups in the order of `param_names`. Options stay those of the config, learning
    rates and scores those of the learning-rate file. Raises ValueError if numbers and names do not agree.
    """
    groups, names = state["optimizer"]["param_groups"], list(state["param_names"])
    numbers = [number for group in groups for number in group["params"]]
    if len(numbers) != len(names):
        raise ValueError(f"{len(numbers)} parameters, but {len(names)} names")
    known = state["optimizer"]["state"]
    slots = {name: dict(known[number]) for number, name in zip(numbers, names, strict=True) if number in known}
    shapes = {name: _shape(values) for name, values in slots.items()}
    first = groups[0] if groups else {}
    options = {key: value for key, value in first.items() if isinstance(value, int | float) and "lr" not in key}
    options |= {f"beta{i}": beta for i, beta in enumerate(first.get("betas") or (), start=1)}
    kind = str(state.get("optimizer_class_name", ""))
    optimizer = {
        "class": f"torch.{kind}" if hasattr(torch.optim, kind) else kind,
        "slots": slots,
        "shapes": shapes,
        "group": {},
        "params": names,
        "options": options,
    }
    made = {"optimizers": {"foreign": optimizer}, "accumulated": {}}
    return {**state, "optimizer": made, "learning_rates": lr_file.to_text({})}


def _shape(values: SavedState) -> list[int]:
    """The parameter's shape: that of the values kept per number of it, not of counters."""
    tensors = [value for key, value in values.items() if isinstance(value, torch.Tensor) and key != "step"]
    largest = max(tensors, key=torch.Tensor.numel, default=torch.zeros(()))
    return list(largest.shape)
