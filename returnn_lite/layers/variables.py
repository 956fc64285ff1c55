"""Variables: `variable`, `variable_assign`, `variable_read`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.layers.constants import check_dtype, static_dims
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.linking import Linker, task
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.runtime_sizes import MadeSizes
from returnn_lite.ops.precision import raised
from returnn_lite.tensor import Spec, Tensor, batch_dim
from returnn_lite.tensor.align import place
from returnn_lite.tensor.axes import describe
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.tensor import DTYPES


@layer("variable")
class Variable(Layer):
    """A parameter as a tensor.  Shape: `shape`; with `add_batch_axis` and `add_time_axis` (B, 1, …)

    Parameter: `param_name`, by default the name of the layer. `init`: an initialiser or number; `init_by_layer`: a
    layer that has the initial value and needs no data of the batch. `non_critical_for_restore`: a model file may lack
    it. `saveable` has no effect.
    """

    sources = "none"

    def __init__(
        self,
        *,
        shape: Sequence[Any],
        dtype: str = "float32",
        add_batch_axis: bool = False,
        add_time_axis: bool = False,
        saveable: bool = True,
        non_critical_for_restore: bool = False,
        init: Any = None,
        init_by_layer: LayerRef | None = None,
        param_name: str | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.dtype = dtype
        self.add_batch_axis = add_batch_axis
        self.add_time_axis = add_time_axis
        self.non_critical_for_restore = non_critical_for_restore
        self.init = init
        self.init_by_layer = init_by_layer
        self.init_node: Node | None = None
        self.param_name = param_name
        self.assigned = False
        check_dtype(self, dtype)
        if None in self.shape:
            raise self.error(f"`shape` must be static, but is {shape!r} instead")
        if init is not None and init_by_layer is not None:
            raise self.error("give either `init` or `init_by_layer`")

    def link(self, net: Linker, node: Node) -> None:
        """Notes the layer `init_by_layer`, which a run does not read."""
        self.init_node = node.refs.pop("init_by_layer", None)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """`shape`, the last axis being the features."""
        dims = static_dims(self, self.shape)
        if any(dim.size is None for dim in dims):
            raise self.error(f"`shape` must be static, but is {self.shape!r} instead")
        time: Any = None
        if self.add_time_axis:
            time = int(self.add_batch_axis)
            dims = [self.dim("dummy-time", 1, SPATIAL), *dims]
        if self.add_batch_axis:
            dims = [batch_dim, *dims]
        return Spec(dims, self.dtype, time=time, feature=len(dims) - 1 if self.shape else None)

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """The parameter."""
        sizes = tuple(d.size or 0 for d in static_dims(self, self.shape))
        name = self.param_name or self.name
        init = 0 if self.init is None else self.init
        if self.init_node is not None:
            init = self._given_values(self.init_node)
        self.value = self.param(name, sizes, init, dtype=DTYPES[self.dtype])
        if self.non_critical_for_restore and self.scope is not None:
            self.scope.store.options[self.scope.full_name(name)].critical = False

    def _given_values(self, node: Node) -> np.ndarray:
        """The output of the layer `init_by_layer`, its axes in the order of `shape`."""
        layout = Spec(static_dims(self, self.shape), self.dtype)
        value = output_without_data(node)
        if value.spec.batch is not None:
            raise self.error(f"`init_by_layer` must have the axes {describe(layout)}, but has {describe(value.spec)}")
        placed = place(value, layout, self.behavior).expand([d.size or 0 for d in layout.dims])
        found: np.ndarray = raised(placed.detach()).cpu().numpy()
        return found

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The parameter, repeated for the batch (as a view)."""
        made = MadeSizes(self)
        spec = self.made_spec()
        value = self.value.clone() if self.assigned else self.value  # a later assignment must not change this output
        return made.tensor(value.expand(made.shape(spec)), spec)


def output_without_data(node: Node) -> Tensor:
    """The output of a node when the net is made; ConfigError where it needs the data of a batch."""
    values: dict[Node, Tensor] = {}
    waiting = [node]
    while waiting:
        last = waiting[-1]
        missing = [n for n in last.inputs if n not in values]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        refs = {option: values[n] for option, n in last.refs.items()}
        with torch.no_grad():
            values[last] = last.layer.run([values[n] for n in last.sources], refs)
    return values[node]


def _variable(owner: Layer, node: Node) -> Variable:
    """The `variable` layer that the option `var` names."""
    found = node.refs["var"].layer
    if not isinstance(found, Variable):
        text = f"`var` must name a `variable` layer, but {node.refs['var'].name!r} is of class {found.class_name!r}"
        raise owner.error(text)
    return found


@task
async def _wait_for(names: Any, net: Linker, node: Node) -> None:
    """Makes the node run after these layers."""
    for name in [names] if isinstance(names, str) else names or ():
        node.refs[f"after:{name}"] = await net.ask(name)


@layer("variable_assign")
class VariableAssign(Layer):
    """Sets a variable to `value`, or (`op` "add") adds it.  Shape: (), int32 0

    `control_dependencies`: layers that are computed before.
    """

    variable: Variable
    sources = "none"

    def __init__(
        self,
        *,
        var: LayerRef,
        value: LayerRef,
        control_dependencies: Sequence[str] | None = None,
        op: str = "assign",
    ) -> None:
        super().__init__()
        self.var = var
        self.value = value
        self.control_dependencies = control_dependencies
        self.op = op
        if op not in ("assign", "add"):
            raise self.error(f'`op` must be "assign" or "add", but is {op!r} instead')

    async def link(self, net: Linker, node: Node) -> None:
        """Finds the variable."""
        variable = self.variable = _variable(self, node)
        variable.assigned = True
        await _wait_for(self.control_dependencies, net, node)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """A single number."""
        return Spec((), "int32")

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """0, after the assignment."""
        variable, value = self.variable.value, refs["value"].data.detach()
        with torch.no_grad():
            if self.op == "add":
                variable.add_(value)
            else:
                variable.copy_(value.expand(variable.shape))
        return MadeSizes(self).tensor(torch.zeros((), dtype=torch.int32, device=value.device), self.made_spec())


@layer("variable_read")
class VariableRead(Layer):
    """The current value of a variable, read after `control_dependencies`.  Shape: that of the variable"""

    variable: Variable
    sources = "none"

    def __init__(self, *, var: LayerRef, control_dependencies: Sequence[str] | None = None) -> None:
        super().__init__()
        self.var = var
        self.control_dependencies = control_dependencies

    async def link(self, net: Linker, node: Node) -> None:
        """Finds the variable."""
        self.variable = _variable(self, node)
        await _wait_for(self.control_dependencies, net, node)

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The variable's axes."""
        return refs["var"]

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """A copy of the value."""
        found = refs["var"]
        return found.with_data(self.variable.value.clone().expand(found.data.shape))
