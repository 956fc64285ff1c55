"""What the task `forward` hands the outputs of every sequence to."""

from __future__ import annotations

from typing import Any

from returnn_lite.frontend.tensor_dict import TensorDict


class ForwardCallback:
    """To be derived from; all methods may stay as they are."""

    def init(self, *, model: Any) -> None:
        """Called once, before the first sequence."""

    def process_seq(self, *, seq_tag: str, outputs: TensorDict) -> None:
        """Called for every sequence. The tensors have no batch axis and no padding, their `raw_tensor` is numpy's."""

    def finish(self) -> None:
        """Called once, after the last sequence."""
