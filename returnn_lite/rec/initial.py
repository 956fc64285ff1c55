"""What `prev:` reads at the first tick: the option `initial_output` of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from returnn_lite.layers.core.linking import Linker, task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.stateful import LoopStart, State, Stateful
from returnn_lite.network.building import compute
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import place
from returnn_lite.tensor.lengths import derive
from returnn_lite.tensor.tensor import DTYPES

_NUMBERS = {"zeros": 0.0, "ones": 1.0}


@task
async def link_initial(node: Node, net: Linker) -> None:
    """Links the layer that `initial_output` names, and makes the vector of "var"."""
    value = node.layer.options.initial_output
    if isinstance(value, str) and value not in (*_NUMBERS, "var", "apply(0)"):
        node.initial = await net.ask(value)


def build_initial(node: Node) -> None:
    """Makes the trainable vector of `initial_output: "var"`: `<layer>/init_<layer>_var`, size of the features."""
    if node.layer.options.initial_output != "var" or node.layer.scope is None:
        return
    if node.spec is None or node.spec.dim is None or node.spec.sparse:
        text = f'`initial_output` "var" needs a dense layer with features, but the layer is {node.spec}'
        raise node.layer.error(text)
    node.layer.param(f"init_{node.name}_var", (node.spec.dim,), 0.0)


def first_output(
    make: LoopStart, node: Node, value_of: Callable[[Node], Tensor], known: Callable[[Node], bool] = lambda node: True
) -> Tensor:
    """What "prev:" of a layer reads at the first tick; `value_of` gives what is `known` before it."""
    layer = node.layer
    if not isinstance(layer, Stateful) or layer.options.initial_output not in (None, 0):
        return make.output(node, value_of)
    if node.spec is None:
        raise layer.error("the axes of this layer are not known")
    state = layer.first_state(make, {k: value_of(n) for k, n in node.refs.items() if known(n)})
    return layer.initial_output(make, node.spec, state)


@runtime_checkable
class StartsItself(Protocol):
    """A layer that knows its output before the first tick."""

    def initial_output(self, make: LoopStart, spec: Spec, state: State | None = None) -> Tensor:
        """What "prev:" of the layer reads at the first tick."""
        ...


class Initial:
    """Makes the initial outputs of one run of a loop, for `batch` sequences; `lengths`: of all axes known outside."""

    def __init__(self, batch: int, device: torch.device, lengths: Mapping[Dim, Lengths]) -> None:
        self.batch = batch
        self.device = device
        self.lengths = lengths

    def zeros(self, spec: Spec) -> Tensor:
        """A tensor of this Spec full of 0."""
        return self.full(spec, 0.0)

    def full(self, spec: Spec, value: float) -> Tensor:
        """A tensor of this Spec full of `value`."""
        shape = [self._size(d, self.lengths) for d in spec.dims]
        dtype = DTYPES["int64" if spec.dtype == "string" else spec.dtype]  # texts are numbers, 0 the empty one
        data = torch.full(shape, value, dtype=dtype, device=self.device)
        return Tensor(data, spec, self.lengths)

    def output(self, node: Node, value_of: Callable[[Node], Tensor]) -> Tensor:
        """The initial output of a layer. Raises ConfigError for labels without an explicit value."""
        layer, spec = node.layer, node.spec
        value = layer.options.initial_output
        if spec is None:
            raise layer.error("the axes of this layer are not known")
        if value in (None, 0) and isinstance(layer, StartsItself):
            return layer.initial_output(self, spec)
        if value is None:
            return self._default(node, spec)
        if isinstance(value, str):
            return self._named(node, spec, value, value_of)
        return self.full(spec, value)

    def _default(self, node: Node, spec: Spec) -> Tensor:
        if spec.sparse:
            text = '`initial_output` must be given, since "prev:" of this layer is read and it gives labels'
            raise node.layer.error(text)
        return self.zeros(spec)

    def _named(self, node: Node, spec: Spec, value: str, value_of: Callable[[Node], Tensor]) -> Tensor:
        if value in _NUMBERS:
            return self.full(spec, _NUMBERS[value])
        if value == "var":
            vector = getattr(node.layer, f"init_{node.name}_var")
            full = self.zeros(spec)
            return full.with_data(full.data + vector)
        if value == "apply(0)":
            return self._applied(node)
        if node.initial is None:
            raise node.layer.error(f"`initial_output` {value!r} is not known here")
        x = value_of(node.initial)
        lengths = {**self.lengths, **x.lengths}
        data = place(x, spec, node.layer.behavior).expand([self._size(d, lengths) for d in spec.dims])
        return Tensor(data, spec, lengths, x.beam)

    def _size(self, dim: Dim, lengths: Mapping[Dim, Lengths]) -> int:
        if dim.is_batch:
            return self.batch
        return dim.size if dim.size is not None else derive(dim, lengths).max

    def _applied(self, node: Node) -> Tensor:
        """The layer on sources of zeros."""
        zeros: dict[Node, Any] = {n: self.zeros(n.spec) for n in node.inputs if n.spec is not None}
        return compute(node, zeros)
