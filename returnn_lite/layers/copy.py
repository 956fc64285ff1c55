"""`copy` and `dropout`: the source itself."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import Tensor


@layer("copy")
class Copy(Layer):
    """The (concatenated) source.  Shape: (B, T, F) -> (B, T, F). A loss sees through it to the pre-activation.

    The layers `extra_deps` are built as well.
    """

    checks_n_out = False

    def __init__(self, *, extra_deps: str | Sequence[str] | None = ()) -> None:
        super().__init__()
        self.extra_deps = (extra_deps,) if isinstance(extra_deps, str) else tuple(extra_deps or ())

    async def link(self, net: Linker, node: Node) -> None:
        """Builds the further layers."""
        for name in self.extra_deps:
            await net.ask(name)

    def forward(self, x: Tensor) -> Tensor:
        """The source; its further outputs are not its own."""
        if x.parts is None:
            return x
        return x.with_data(x.data, pre=x.pre, state=x.state, sequence_loss=x.sequence_loss, zero_padded=x.zero_padded)


@layer("dropout")
class Dropout(Copy):
    """The source with the common option `dropout`.  Shape: (B, T, F) -> (B, T, F)"""
