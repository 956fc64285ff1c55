"""Parameters that a model file has under another name or in another layout: variants of LSTMs, batch normalisation.

Only for parameters that the file lacks under their own name, and only from entries that no other parameter takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from returnn_lite.engine.checkpoints.lstm_layouts import CELL_NAME, CELLS, find_lstm

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Arrays = Mapping[str, torch.Tensor]

_BATCH_NORM = re.compile(r"(.*batch_norm/)(?:[^/]*_)?(beta|gamma|mean|variance)")
_ACCUMULATED = {"mean": "mean_1", "mean_1": "mean"}
_NATIVE_LSTM = ("W", "W_re", "b")


@dataclass
class Converted:
    """Values by the names that were asked for, the entries of the file that each was made from, remarks for the log."""

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


def convert(shapes: Shapes, file: Arrays) -> Converted:
    """What can be made for the names of `shapes` that the file lacks, or has in the shape of another LSTM layout."""
    found = Converted()
    free = {name: value for name, value in file.items() if shapes.get(name) != tuple(value.shape)}
    for name, shape in shapes.items():
        if name not in file:
            _convert_one(name, shape, shapes, free, file, found)
        elif name in free and name.endswith("/W"):
            _lstm(name, shape, shapes, free, file, found, only_if_it_fits=True)
    return found


def _convert_one(name: str, shape: Shape, shapes: Shapes, free: Arrays, file: Arrays, found: Converted) -> None:
    origin = _other_cell(name, free) or _batch_norm(name, shapes, free) or _accumulated_mean(name, free)
    if origin is None:
        _lstm(name, shape, shapes, free, file, found)
        return
    value = free[origin]
    found.values[name] = value.reshape(shape) if value.numel() == math.prod(shape) else value
    found.origins[name] = (origin,)


def _lstm(
    name: str,
    shape: Shape,
    shapes: Shapes,
    free: Arrays,
    file: Arrays,
    found: Converted,
    *,
    only_if_it_fits: bool = False,
) -> None:
    """Weights or bias of an LSTM from another layout."""
    cell = CELL_NAME.fullmatch(name)
    scope, leaf = (cell["scope"], cell["leaf"]) if cell else name.rpartition("/")[::2]
    if leaf not in (("kernel", "bias") if cell else _NATIVE_LSTM):
        return
    source = find_lstm(scope, free, file)
    value = source.value(leaf, in_cell=cell is not None, split=f"{scope}/W_re" in shapes) if source else None
    if source is None or value is None or (only_if_it_fits and tuple(value.shape) != shape):
        return
    found.values[name], found.origins[name] = value, source.names
    if remark := source.remark(in_cell=cell is not None):
        found.remarks[scope] = remark


def _other_cell(name: str, free: Arrays) -> str | None:
    """Any parameter of an LSTM cell (such as `w_f_diag`) in a cell of another name; but not weights and biases."""
    cell = CELL_NAME.fullmatch(name)
    if cell is None or cell["leaf"] in ("kernel", "bias"):
        return None
    names = (f"{cell['scope']}/{other}/{cell['leaf']}" for other in CELLS)
    return next((other for other in names if other in free), None)


def _batch_norm(name: str, shapes: Shapes, free: Arrays) -> str | None:
    """The one entry of the same kind (beta, gamma, mean, variance) in the same batch normalisation."""
    match = _BATCH_NORM.fullmatch(name)
    if match is None or len(_same_kind(match, shapes)) != 1:
        return None
    candidates = _same_kind(match, free)
    return candidates[0] if len(candidates) == 1 else None


def _same_kind(match: re.Match[str], names: Mapping[str, object]) -> list[str]:
    others = (_BATCH_NORM.fullmatch(name) for name in names)
    return [other[0] for other in others if other and other.groups() == match.groups()]


def _accumulated_mean(name: str, free: Arrays) -> str | None:
    """`accumulate_mean` calls its parameter `mean_1`, as files do; `mean` is accepted as well."""
    scope, _, leaf = name.rpartition("/")
    other = f"{scope}/{_ACCUMULATED.get(leaf, '')}"
    return other if other in free else None
