"""Layers without a config word: the nodes that read data, other nets, or one of several outputs."""

from __future__ import annotations

from typing import ClassVar

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.tensor import Spec, Tensor


class DataSource(Layer):
    """One key of the batch."""

    class_name: ClassVar[str] = "data"
    sources: ClassVar[str] = "none"

    def __init__(self, key: str, spec: Spec) -> None:
        super().__init__()
        self.key = key
        self._spec = spec

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """As extern_data says."""
        return self._spec

    def is_recurrent(self) -> bool:
        """Numbers of sequences are one per row of the batch."""
        return self.key == "seq_idx"

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The tensor of the present batch; without numbers of the sequences they are counted from 0."""
        feed = self.context.run.data
        if self.key == "seq_idx" and self.key not in feed:
            made = MadeSizes(self)
            return made.tensor(torch.arange(made.batch, dtype=torch.int32, device=made.device), self._spec)
        if self.key not in feed:
            raise self.error(f"the dataset has no data key {self.key!r}; it has: {', '.join(map(repr, feed))}")
        return feed[self.key]


class PartOf(Layer):
    """One of the further outputs of a layer: "split/0", "rec/sub"."""

    class_name: ClassVar[str] = "part"
    sources: ClassVar[str] = "many"

    def __init__(self, part: str, of: Layer) -> None:
        super().__init__()
        self.part = part
        self.of = of

    def output_spec(self, sources: tuple[Spec | None, ...], refs: object) -> Spec | None:
        """What the layer says of this part."""
        return self.of.part_spec_from(self.part, sources[0])

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The part, taken from the layer's output."""
        parts = sources[0].parts or {}
        if self.part not in parts:
            raise self.error(f"the layer has no part {self.part!r}; it has: {', '.join(parts) or 'none'}")
        return parts[self.part]
