"""Layers that only do something beside: `print`, `identity`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.precision import raised
from returnn_lite.tensor import Spec, Tensor


@layer("print")
class Print(Layer):
    """The source; its values are written to stdout at every step.  Shape: unchanged"""

    sources = "many"

    def __init__(self, *, summarize: int = 99, extra_print_args: Sequence[Any] = ()) -> None:
        super().__init__()
        self.summarize = summarize
        self.extra = tuple(extra_print_args)

    @property
    def differs_by_step(self) -> str:
        """It prints."""
        return "prints"

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source."""
        return sources[0]

    def forward(self, x: Tensor) -> Tensor:
        """The source."""
        values = raised(x.data.detach()).cpu().numpy()
        shown = str(values) if values.size <= self.summarize else f"{values.reshape(-1)[: self.summarize]} …"
        print("PrintLayer", self.name, *self.extra, shown)  # the reference's line
        return x


@layer("identity")
class Identity(Layer):
    """The source, after the layers `control_dependencies` have been computed.  Shape: unchanged"""

    sources = "many"

    def __init__(self, *, control_dependencies: Sequence[str] | str | None = None) -> None:
        super().__init__()
        self.control_dependencies = control_dependencies

    async def link(self, net: Linker, node: Node) -> None:
        """Those layers run before."""
        names = self.control_dependencies or ()
        for name in [names] if isinstance(names, str) else names:
            node.refs[f"after:{name}"] = await net.ask(name)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The source."""
        return sources[0]

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The source."""
        return sources[0]
