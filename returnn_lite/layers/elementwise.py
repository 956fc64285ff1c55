"""Element-wise layers over several sources: `combine`, `compare`; and `activation`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch

from returnn_lite.config_value import ConfigDict, ConfigOptions
from returnn_lite.errors import did_you_mean
from returnn_lite.layers.activations import activated
from returnn_lite.layers.activations import activation as find_activation
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.context import Surroundings
from returnn_lite.layers.core.out_type import overridden
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.core.size_target import with_target_axes
from returnn_lite.layers.views.eval_view import called_out_type
from returnn_lite.ops import elementwise
from returnn_lite.ops.precision import HALF
from returnn_lite.tensor import Spec, Tensor
from returnn_lite.tensor.align import common, joined, place
from returnn_lite.tensor.hypotheses import hypotheses, place_apart
from returnn_lite.tensor.tensor import DTYPE_NAMES

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_KINDS: dict[str, Binary] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "maximum": elementwise.maximum,
    "minimum": elementwise.minimum,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "squared_difference": lambda a, b: (a - b).square(),
    "logaddexp": torch.logaddexp,
    "atan2": torch.atan2,
    "divide_no_nan": lambda a, b: torch.where(
        b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b)
    ),
}
_INTO: dict[str, Binary] = {"add": torch.Tensor.add_, "sub": torch.Tensor.sub_, "mul": torch.Tensor.mul_}
_SIGNS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "**": "pow", "%": "mod"}
_OTHER_NAMES = {"subtract": "sub", "multiply": "mul", "divide": "truediv", "average": "average", "power": "pow"}


class Elementwise(Layer):
    """Base of layers that combine their sources element by element in the common layout of all."""

    sources = "many"
    checks_n_out = False
    allow_broadcast = False

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The common layout of the sources (those known so far), with the overrides of `out_type`."""
        known = tuple(s for s in sources if s is not None)
        if not known:
            return self.alone() if not sources else None
        layout = common(known, self.behavior)
        if not self.allow_broadcast:
            self.check_broadcast(layout, known)
        return self.checked(with_target_axes(self, overridden(layout, out_type_of(self, known), known, self.name)))

    def alone(self) -> Spec | None:
        """The Spec without any source; None for a layer that needs some."""
        return None

    def checked(self, spec: Spec) -> Spec:
        """The Spec, if its feature size is what `n_out` says."""
        n_out = self.options.n_out
        if n_out is not None and spec.dim is not None and spec.dim != n_out:
            raise self.error(f"`n_out` must be {spec.dim}, the size that the sources give, but is {n_out} instead")
        return spec


def out_type_of(layer: Layer, known: tuple[Spec, ...]) -> ConfigDict | None:
    """The option `out_type`; a function of the config is called."""
    given = layer.options.out_type
    found: ConfigDict | None = called_out_type(layer, given, known) if callable(given) else given
    return found


@layer("combine")
class Combine(Elementwise):
    """The sources folded from the left with `kind` (add, sub, mul, …), plus `b`, then the activation.

    Shape: (B, T, F), (B, F) -> (B, T, F). Parameter with `with_bias`: `b` (F,).
    """

    def __init__(
        self,
        *,
        kind: str,
        activation: str | None = None,
        with_bias: bool = False,
        eval: str | Callable[..., Any] | None = None,  # noqa: A002 - the config word
        eval_locals: Mapping[str, Any] | None = None,
        eval_for_output_loss: bool = False,
        allow_broadcast_all_sources: bool = False,
    ) -> None:
        super().__init__()
        self.kind = _SIGNS.get(kind, _OTHER_NAMES.get(kind, kind))
        self.activation_text = activation
        self.with_bias = with_bias
        self.eval_locals = dict(eval_locals or {})
        self.allow_broadcast = allow_broadcast_all_sources
        self.activation = find_activation(None)
        if kind == "eval":
            raise self.error('use the layer class "eval" instead of kind "eval"')

    @classmethod
    def prepare(cls, description: ConfigOptions, net: Surroundings) -> ConfigOptions:
        """`kind` "eval" is the layer class "eval"."""
        if description.get("kind") == "eval":
            return {**{k: v for k, v in description.items() if k != "kind"}, "class": "eval"}
        return description

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """`b`, and the function of `kind`."""
        self.activation = find_activation(self.activation_text, self.context.eval_names, path=self.path)
        self.function = self._function()
        spec = self.spec(*sources)
        if self.with_bias and spec is not None:
            self.b = self.param("b", (spec.dim or 1,), 0.0)

    def _function(self) -> Binary:
        if self.kind == "average":
            return operator.add
        found = _KINDS.get(self.kind) or getattr(self.context.eval_names.get("tf"), self.kind, None)
        if found is None:
            raise self.error(f"unknown kind {self.kind!r}{did_you_mean(self.kind, [*_KINDS, 'average', 'eval'])}")
        return found

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The folded sources."""
        spec = self.spec(*[x.spec for x in sources])
        if spec is None:
            raise self.error("needs at least one source")
        dtypes = {x.spec.dtype for x in sources}
        if len(dtypes) > 1:
            raise self.error(f"all sources must have one dtype, but have {', '.join(sorted(dtypes))} instead")
        data = self._folded(sources, spec)
        if self.kind == "average":
            data = data / len(sources)
        if self.with_bias:
            shape = [-1 if i == spec.feature else 1 for i in range(spec.rank)]
            data = data + self.b.reshape(shape)
        dtype = DTYPE_NAMES.get(data.dtype, str(data.dtype))
        if dtype != spec.dtype and spec.dtype != "string" and data.dtype not in HALF:  # which are mixed precision's
            text = f"the output must have dtype {spec.dtype}, but {self.kind!r} gives {dtype}"
            raise self.error(f'{text}; give `out_type`: {{"dtype": …}}')
        axis = -1 if spec.feature is None else spec.feature
        return activated(joined(data, spec, sources), self.activation, axis, self.options)

    def _folded(self, sources: tuple[Tensor, ...], spec: Spec) -> torch.Tensor:
        """The sources combined by the function."""
        size = hypotheses(sources) if self.context.beams else 0
        if not size:
            return self._reduced([place(x, spec, self.behavior) for x in sources])
        at = spec.batch or 0
        return self._reduced([place_apart(x, spec, self.behavior, size) for x in sources]).flatten(at, at + 1)

    def _reduced(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """The parts folded from the left; without gradients in the memory of the first result, where it is as large."""
        into = None if torch.is_grad_enabled() else _INTO.get(self.kind)
        if into is None or len(parts) < 3:
            return reduce(self.function, parts)
        total = self.function(parts[0], parts[1])
        for part in parts[2:]:
            total = into(total, part) if _fits(part, total) else self.function(total, part)
        return total


def _fits(part: torch.Tensor, total: torch.Tensor) -> bool:
    """Whether `part` broadcasts to the shape of `total`, both of one dtype and as many axes."""
    return part.dtype == total.dtype and all(n in (1, m) for n, m in zip(part.shape, total.shape, strict=True))


_COMPARISONS: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
_COMPARISON_SIGNS = dict(
    zip(
        ("==", "!=", "<>", "<", "<=", ">", ">="),
        ("equal", "not_equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
        strict=True,
    )
)


@layer("compare")
class Compare(Elementwise):
    """Compares neighbouring sources (and `value` last) with `kind`; several comparisons are joined by "and".

    Shape: (B, T) -> (B, T) bool, never sparse. Kinds: equal, not_equal, less, less_equal, greater, greater_equal or
    signs.
    """

    def __init__(
        self, *, kind: str = "equal", value: float | bool | None = None, allow_broadcast_all_sources: bool = False
    ) -> None:
        super().__init__()
        self.kind = _COMPARISON_SIGNS.get(kind, kind)
        self.value = value
        self.allow_broadcast = allow_broadcast_all_sources
        if self.kind not in _COMPARISONS:
            raise self.error(f"unknown kind {kind!r}{did_you_mean(kind, _COMPARISONS)}")

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The common layout as bool."""
        if len(sources) + (self.value is not None) < 2:
            raise self.error("`compare` requires at least two elements: two sources, or one and `value`")
        known = tuple(s for s in sources if s is not None)
        if not known:
            return None
        layout = common(known, self.behavior)
        return overridden(layout.with_dtype("bool"), out_type_of(self, known), known, self.name)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """Bool."""
        spec = self.spec(*[x.spec for x in sources])
        if spec is None:
            raise self.error("needs a source")
        values: list[Any] = [place(x, spec, self.behavior) for x in sources]
        if self.value is not None:
            values.append(self.value)
        compare = _COMPARISONS[self.kind]
        results = [compare(a, b) for a, b in zip(values, values[1:], strict=False)]
        return joined(reduce(torch.logical_and, results), spec, sources)


@layer("activation")
class ActivationLayer(Layer):
    """The activation function of this name on the source.  Shape: (B, T, F) -> (B, T, F); softmax: features last."""

    def __init__(self, *, activation: str | None, opts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.activation_text = activation
        self.opts = dict(opts or {})
        self.axis = self.opts.pop("axis", -1)
        self.activation = find_activation(None)

    def spec(self, x: Spec | None) -> Spec | None:
        """The source; complex numbers become real for abs and angle."""
        if x is None:
            return None
        if self.activation_text in ("softmax", "log_softmax") and x.feature is not None:
            x = x.permuted((*(i for i in range(x.rank) if i != x.feature), x.feature))
        return x.with_dtype("float32") if x.dtype == "complex64" and self.activation_text in ("abs", "angle") else x

    def build(self, *sources: Spec, **refs: Spec) -> None:
        """Looks the function up."""
        found = find_activation(self.activation_text, self.context.eval_names, path=self.path)
        self.activation = found.with_options(**self.opts)

    def is_recurrent(self) -> bool:
        """Only a softmax over a dynamic axis is."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The function's result."""
        spec = self.spec(x.spec)
        if self.activation_text in ("softmax", "log_softmax") and x.spec.feature is not None:
            x = x.axis_last(x.spec.feature)
        if not self.activation.name:
            return x
        return activated(x.with_data(x.data, spec), self.activation, self.axis, self.options)
