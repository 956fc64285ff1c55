"""The options of a loop over a sub-network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.tensor.axes import AxisText


@dataclass(frozen=True)
class LoopOptions:
    """What the config says of a loop: its layers `unit`, and the options of the rec layer (see `loop_layer.py`)."""

    unit: Mapping[str, Any]
    max_seq_len: Any = None
    max_seq_len_via: str | None = None
    axis: AxisText = None
    include_eos: bool = False
    optimize: bool | None = None
    global_offset: bool = False
