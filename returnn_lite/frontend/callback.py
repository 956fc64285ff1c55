"""What the task `forward` hands the outputs of every sequence to."""

from __future__ import annotations

from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.frontend.types import Part


class ForwardCallback:
    """A base class; overriding its methods is optional."""

    def init(self, *, model: Part) -> None:
        """Called once, before the first sequence."""

    def process_seq(self, *, seq_tag: str, outputs: TensorDict) -> None:
        """Called for every sequence. The tensors have no batch axis and no padding, their `raw_tensor` is numpy's."""

    def finish(self) -> None:
        """Called once, after the last sequence."""
