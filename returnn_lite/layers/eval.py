"""`eval`: the output is a Python expression or function of the sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from returnn_lite.config.config_code import check_names, expression
from returnn_lite.config_value import ConfigOptions
from returnn_lite.layers.arithmetic import Formula, formula
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.linking import Linker
from returnn_lite.layers.core.node import Node
from returnn_lite.layers.core.out_type import overridden
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.size_target import with_target_lengths
from returnn_lite.layers.elementwise import Elementwise, out_type_of
from returnn_lite.layers.views.data_view import SourceView
from returnn_lite.layers.views.eval_view import LayerView
from returnn_lite.layers.views.network_view import ComputedLayer, wrapper
from returnn_lite.ops.precision import HALF
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import joined, merged_lengths, place
from returnn_lite.tensor.tensor import DTYPE_NAMES


@layer("eval")
class Eval(Elementwise):
    """The value of the expression `eval` (or of a function with keywords `source`, `self` and `eval_locals`).

    Shape: the common layout of all sources, changed by `out_type`. `source(i)` is source i in that layout, `tf` and the
    helpers are those given to the network, `self` answers `network.get_config()`, `network.train_flag` and the like.
    Without sources `out_type` gives all axes. Every source must be used; dtype and number of axes of the result must be
    what is declared.
    """

    recurrent = True

    def __init__(
        self,
        *,
        eval: Any,  # noqa: A002 - the config word
        eval_locals: Mapping[str, Any] | None = None,
        activation: str | None = None,
        with_bias: bool = False,
        eval_for_output_loss: bool = False,
        allow_broadcast_all_sources: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(eval, str) and not callable(eval):
            raise self.error(f"`eval` must be an expression or a function, but is {eval!r} instead")
        self.expression = eval
        self.node: Node | None = None
        self.eval_locals = dict(eval_locals or {})
        self.allow_broadcast = allow_broadcast_all_sources
        self.code = expression(eval, "eval") if isinstance(eval, str) else None

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """Code that reads hidden states of the sources makes it a layer that asks for them."""
        code = getattr(description.get("eval"), "__code__", None) or description.get("eval")
        reads = "get_last_hidden_state" in (code if isinstance(code, str) else getattr(code, "co_names", ()))
        return {**description, "class": "eval.states"} if reads else description

    def link(self, net: Linker, node: Node) -> None:
        """Remembers who its sources are; refuses unknown names."""
        if isinstance(self.expression, str):
            check_names(self.expression, "eval", (*self._code_names, "source", "self"))
        self.node = node

    @property
    def sees_batch(self) -> bool:
        """Functions of configs, and strings that ask the network, may look at the batch as a whole."""
        return self.code is None or "self" in self.expression or bool(self.eval_locals)

    @property
    def differs_by_step(self) -> str:
        """Functions of configs, and strings that ask the network, may look at the step."""
        return "may look at the step" if self.code is None or "self" in self.expression or self._calls_config else ""

    @property
    def _calls_config(self) -> bool:
        """Whether the expression may call code of the config."""
        return any(map(callable, self.eval_locals.values()))

    def alone(self) -> Spec | None:
        """What `out_type` says; else one number."""
        return overridden(Spec(()), out_type_of(self, ()), (), self.name)

    def checked(self, spec: Spec) -> Spec:
        """`n_out` is only a hint where `out_type` gives the shape."""
        return spec if self.options.out_type else super().checked(spec)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The value, checked."""
        spec = self.spec(*[x.spec for x in sources])
        if spec is None:
            raise self.error("needs at least one source")
        if self.formula is not None and self._is_plain(sources, spec):
            value = self.formula([place(x, spec, self.behavior) for x in sources])
            return joined(value, spec, with_target_lengths(self, spec, value, sources))
        used: set[int] = set()
        shown, order = (spec, None) if not spec.loop else ordinary(spec)
        visible = sources if order is None else tuple(_ordinary(x) for x in sources)
        value = self._value(lambda i=0, **how: self._source(i, visible, shown, used, **how), visible, shown)
        unused = set(range(len(sources))) - used
        if unused:
            raise self.error(f"not used sources: {unused}")
        texts = hasattr(value, "texts")
        value = self.context.eval_names.get("as_plain_tensor", _unchanged)(value)
        if not isinstance(value, torch.Tensor):
            raise self.error(f"the value of `eval` must be a tensor, but is {type(value).__name__} instead")
        dtype = "string" if texts else DTYPE_NAMES.get(value.dtype, str(value.dtype))
        lower = value.dtype in HALF and spec.dtype == "float32"  # by mixed precision
        if dtype != spec.dtype and not lower:
            raise self.error(
                f'the value of `eval` must have dtype {spec.dtype}, but has {dtype}; give `out_type`: {{"dtype": …}}'
            )
        if value.dim() != spec.rank:
            spec, order = self._without_loops(spec, value), None
        if order is not None:
            value = value.permute([order.index(i) for i in range(spec.rank)])
        if any(dim.size not in (None, size) for dim, size in zip(spec.dims, value.shape, strict=True)):
            text = f"the value of `eval` must have the axes {spec}, but has shape {tuple(value.shape)}"
            raise self.error(f'{text}; give `out_type`: {{"shape": …}}')
        if not sources:
            data = [*self.context.run.data.values()]
            return Tensor(value, spec, merged_lengths(data) if data and spec.dynamic else {})
        return joined(value, spec, with_target_lengths(self, spec, value, sources))

    @cached_property
    def formula(self) -> Formula | None:
        """The expression, where it is plain arithmetic."""
        return formula(self.expression) if isinstance(self.expression, str) and not self.eval_locals else None

    def _is_plain(self, sources: tuple[Tensor, ...], spec: Spec) -> bool:
        """Whether the formula applies: to all sources, of one float type."""
        given = self.formula is not None and len(self.formula.reads) == len(sources) > max(self.formula.reads)
        return given and not spec.loop and spec.dtype == "float32" and all(x.spec.dtype == "float32" for x in sources)

    def _without_loops(self, spec: Spec, value: torch.Tensor) -> Spec:
        """The axes of a value that sums the frames of the loop up, where `out_type` gives all axes of a tick.

        So full sums over alignments do, which are written into a loop. ConfigError for any other value.
        """
        bare, given = spec.one_tick(), self.options.out_type
        if not spec.loop or not given or value.dim() != bare.rank:
            text = f"the value of `eval` must have the axes {spec}, but has shape {tuple(value.shape)} instead"
            raise self.error(text)
        return bare

    def _value(self, source: Any, sources: tuple[Tensor, ...], spec: Spec) -> Any:
        if self.code is None:
            view = self._view(sources, spec)
            return self.expression(source=source, self=view, **self.eval_locals)
        if "self" in self.expression:
            self._code_names["self"] = self._view(sources, spec)
        self._code_names["source"] = source
        return eval(self.code, self._code_names)  # noqa: S307 - the config's own code

    @cached_property
    def _code_names(self) -> dict[str, Any]:
        """What the expression may name, made once: there are hundreds."""
        return {**self.context.eval_names, **self.eval_locals}

    def _view(self, sources: tuple[Tensor, ...], spec: Spec) -> LayerView:
        """The layer as the code sees it."""
        description = self.node.description if self.node is not None else None
        return LayerView(self, sources, self._names(len(sources)), spec, description)

    def _names(self, count: int) -> list[str]:
        """The names of the sources."""
        node = self.node
        return [f"source{i}" for i in range(count)] if node is None else [n.name for n in node.sources]

    def _source(
        self,
        i: int,
        sources: tuple[Tensor, ...],
        spec: Spec,
        used: set[int],
        auto_convert: bool = True,
        enforce_batch_major: bool = False,
        as_data: bool = False,
        as_layer: bool = False,
    ) -> Any:
        """`source(i)` of eval strings."""
        if not 0 <= i < len(sources):
            raise self.error(f"`source({i})` must be below {len(sources)}, the number of sources")
        used.add(i)
        x = sources[i]
        wrap = wrapper(self)
        if as_layer or as_data:
            name = self._names(len(sources))[i]
            return ComputedLayer(self, x, name) if as_layer else SourceView(x, name, wrap)
        if enforce_batch_major:
            return wrap(x.batch_major().data, x.spec.dtype)
        return wrap(place(x, spec, self.behavior) if auto_convert else x.data, x.spec.dtype)


def ordinary(spec: Spec) -> tuple[Spec, tuple[int, ...]]:
    """How code of a config sees a layer moved out of a loop: (L, B, …) -> (B, L, …), L an axis like others.

    Returns the Spec, and the old position of each of its axes.
    """
    front = [] if spec.batch is None else [spec.batch]
    front += [i for i, d in enumerate(spec.dims) if d in spec.loop]
    order = (*front, *(i for i in range(spec.rank) if i not in front))
    shown = spec.permuted(order)
    for dim in shown.dims:
        shown = shown.leave_loop(dim)
    return shown, order


def _ordinary(x: Tensor) -> Tensor:
    shown, order = x.spec.memo("ordinary", lambda: ordinary(x.spec))
    left = x.permuted(order).copy()
    left.spec = shown
    return left


def _unchanged(x: Any) -> Any:
    return x
