"""`get_last_hidden_state`, and who has a state to read."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.copy import Copy
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.stateful import Stateful, ticking
from returnn_lite.layers.core.states import state_part
from returnn_lite.layers.eval import Eval
from returnn_lite.network.subnet import Subnetwork
from returnn_lite.rec.inputs import InnerSource
from returnn_lite.tensor import Spec, Tensor, batch_dim
from returnn_lite.tensor.align import joined


def state_owner(node: Node) -> Node:
    """The node whose state is meant by reading the state of `node`: copies, sub-networks and "prev:" are followed."""
    while True:
        layer = node.layer
        if node.previous is not None:
            node = node.previous
        elif isinstance(layer, InnerSource) and layer.kind == "outer":
            node = layer.inputs.captured[layer.key]
        elif isinstance(layer, Subnetwork):
            node = node.refs["output"]
        elif isinstance(layer, Copy) and len(node.sources) == 1:
            node = node.sources[0]
        else:
            return node


def request_state(node: Node) -> None:
    """Makes the layer of `node` hand on its last hidden state (`Tensor.state`)."""
    layer = state_owner(node).layer
    if isinstance(layer, Stateful):
        layer.needs_state = True


def request_states(reader: Node) -> str:
    """`request_state` of all sources of a node; returns why the reader has to stay in its loop, "" if it need not."""
    reason = ""
    for source in reader.sources:
        request_state(source)
        owner = state_owner(source)
        whole = isinstance(owner.layer, Stateful) and owner.layer.state_has_loops and ticking(owner) is None
        by_tick = source.previous is not None or not whole
        if owner.layer.hidden_state and by_tick and not isinstance(source.layer, InnerSource):
            reason = f"reads the state of {owner.name!r} tick by tick"
    return reason


@layer("eval.states")
class EvalOfStates(Eval):
    """`eval` whose code reads hidden states of its sources: `self.sources[i].get_last_hidden_state(key)`."""

    stays_in_loop: str = ""

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """Asks the sources to keep their states."""
        super().build(*sources, **refs)
        if self.node is not None:
            self.stays_in_loop = request_states(self.node)


@layer("get_last_hidden_state")
class GetLastHiddenState(Layer):
    """The state of recurrent layers after the last frame of each sequence; in a loop after the current tick.

    Shape: (B, n_out). `key`: "c", "h", …; "*" all parts side by side; "flat" as well, if there are several. Several
    sources: `combine` "concat" or "add".
    """

    sources = "many"
    stays_in_loop: str = ""
    reader: Node

    def __init__(
        self, *, n_out: PositiveInt | None = None, combine: str = "concat", key: str | int | None = "*"
    ) -> None:
        super().__init__()
        if combine not in ("concat", "add"):
            raise self.error(f'`combine` must be "concat" or "add", but is {combine!r} instead')
        self.n_out = n_out
        self.combine = combine
        self.key = key

    def link(self, net: Linker, node: Node) -> None:
        """Remembers whose states are read."""
        self.reader = node

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """(B, n_out)"""
        loops = list(dict.fromkeys(d for s in sources if s is not None for d in s.dims if d in s.loop))
        dims = (*loops, batch_dim, self.feature_dim(self.n_out))
        return Spec(dims, time=None, feature=len(dims) - 1, loop=frozenset(loops))

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """Asks the sources to keep their states."""
        self.stays_in_loop = request_states(self.reader)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The states."""
        parts = [self._state(x) for x in sources]
        out = torch.stack(parts).sum(0) if self.combine == "add" else torch.cat(parts, -1)
        spec = self.spec(*(x.spec for x in sources))
        if spec is None or spec.dim != out.shape[-1]:
            raise self.error(f"`n_out` must be {out.shape[-1]} for these states, but is {self.n_out} instead")
        return joined(out, spec, sources, state={"state": out})

    def _state(self, x: Tensor) -> torch.Tensor:
        """The wanted part of the state of one source."""
        if not x.state:
            raise self.error(f"a source has no hidden state: {x.spec}")
        return state_part(x.state, self.key, self.error)
