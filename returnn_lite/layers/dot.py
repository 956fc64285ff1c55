"""The product of two tensors, summed over axes: `dot`."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import torch

from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import layer
from returnn_lite.layers.reduce import has_int
from returnn_lite.tensor import AUTO, Dim, Spec, Tensor
from returnn_lite.tensor.align import joined, match
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.dim import FEATURE
from returnn_lite.tensor.hypotheses import product_of
from returnn_lite.tensor.masked import fill_padding
from returnn_lite.tensor.spec import Role

Axes = tuple[int, ...]
NOT_GIVEN: Any = "not given"
_OLD_DEFAULTS = {"red1": -1, "red2": -2, "var1": -2, "var2": -1}  # below behaviour version 3


@dataclass(frozen=True)
class _Plan:
    """The einsum, the Spec of the result, and which axes are summed."""

    equation: str
    out: Spec
    red: tuple[Axes, Axes]
    added: bool


@layer("dot")
class Dot(Layer):
    """Two sources multiplied and summed over `red1` / `red2`.  Shape: (B, T, F), (B, S, F), "F", var "T" -> (B, T, S)

    Output: axes that both have, then `var1` of the first, then `var2` of the second; "auto": those the other one lacks.
    An empty `var2` adds an axis of size 1 below behaviour version 3, unless `add_var2_if_empty` is False. Frames after
    sequence ends count as 0 when summed, unless `use_mask` is False. `reduce`: both `red1` and `red2`; a sparse source
    whose classes it names is looked up.
    """

    sources = "many"
    recurrent = True

    def __init__(
        self,
        *,
        red1: AxisText = NOT_GIVEN,
        red2: AxisText = NOT_GIVEN,
        var1: AxisText = NOT_GIVEN,
        var2: AxisText = NOT_GIVEN,
        reduce: AxisText = NOT_GIVEN,
        add_var2_if_empty: bool | None = None,
        use_mask: bool = True,
        debug: bool = False,
    ) -> None:
        super().__init__()
        if reduce is not NOT_GIVEN:
            if red1 is not NOT_GIVEN or red2 is not NOT_GIVEN:
                raise self.error("give either `reduce` or `red1` and `red2`")
            red1 = red2 = reduce
            var1 = "auto" if var1 is NOT_GIVEN else var1
            var2 = "auto" if var2 is NOT_GIVEN else var2
        self.given = {"red1": red1, "red2": red2, "var1": var1, "var2": var2}
        self.add_var2_if_empty = add_var2_if_empty
        self.use_mask = use_mask
        self.plans: dict[tuple[Spec, Spec], _Plan] = {}

    def is_recurrent(self) -> bool:
        """Not if only the features are summed."""
        reduced = (self.given["red1"], self.given["red2"])
        return not all(isinstance(r, str) and r.lower() in ("f", "feature") for r in reduced)

    def _option(self, name: str) -> Any:
        value = self.given[name]
        if value is not NOT_GIVEN:
            if self.behavior >= 3 and has_int(value):
                raise self.error(f"`{name}` must not be a number (behavior_version >= 3), but is {value!r} instead")
            return value
        if self.behavior < 3:
            return _OLD_DEFAULTS[name]
        if name in ("red1", "red2"):
            raise self.error(f"`{name}` (or `reduce`) must be given (required since behavior_version >= 3)")
        return "auto"

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Common axes, var1, var2; time is that of the first source, else of the second, else the default."""
        if len(sources) != 2:
            raise self.error(f"needs two sources, but has {len(sources)}")
        a, b = sources
        return None if a is None or b is None else self.product_plan(a, b).out

    def product_plan(self, a: Spec, b: Spec) -> _Plan:
        """The equation and the result's Spec for sources of these Specs."""
        if (a, b) not in self.plans:
            self.plans[a, b] = self._made_plan(_dense(a), _dense(b))
        return self.plans[a, b]

    def _made_plan(self, a: Spec, b: Spec) -> _Plan:
        red = find_axes(a, self._option("red1"), option="red1"), find_axes(b, self._option("red2"), option="red2")
        self._check_reduced(a, b, red)
        pairs, var1, var2 = self._kept(a, b, red)
        letters = iter(string.ascii_letters)
        of_a = {i: next(letters) for i in range(a.rank)}
        of_b = {j: of_a[i] for i, j in (*zip(*red, strict=True), *pairs.items())}
        of_b |= {j: next(letters) for j in range(b.rank) if j not in of_b}
        alone = [j for j in range(b.rank) if j not in (*red[1], *var2, *pairs.values())]
        common_a = [i for i in range(a.rank) if i not in (*red[0], *var1)]
        kept = [(1, j) for j in alone] + [(0, i) for i in common_a] + [(0, i) for i in var1] + [(1, j) for j in var2]
        kept.sort(key=lambda at: (a, b)[at[0]].dims[at[1]] not in (a, b)[at[0]].loop)
        inputs = ("".join(of[i] for i in sorted(of)) for of in (of_a, of_b))
        equation = f"{','.join(inputs)}->{''.join((of_a, of_b)[s][i] for s, i in kept)}"
        added = not var2 and self._adds_axis()
        return _Plan(equation, self._out(a, b, kept, pairs, added), red, added)

    def _adds_axis(self) -> bool:
        if self.behavior >= 3:
            if self.add_var2_if_empty:
                raise self.error("`add_var2_if_empty` is not allowed (since behavior_version >= 3)")
            return False
        return self.add_var2_if_empty is not False and self._option("var2") != "auto"

    def _check_reduced(self, a: Spec, b: Spec, red: tuple[Axes, Axes]) -> None:
        sizes = [a.dims[i].size for i in red[0]], [b.dims[i].size for i in red[1]]
        if sizes[0] != sizes[1]:
            text = f"`red1` {self._option('red1')!r} and `red2` {self._option('red2')!r} must name axes of equal sizes"
            sources = f"{describe(a)}, {describe(b)}"
            raise self.error(f"{text}, but their sizes are {sizes[0]} and {sizes[1]}; sources: {sources}")

    def _kept(self, a: Spec, b: Spec, red: tuple[Axes, Axes]) -> tuple[dict[int, int], Axes, Axes]:
        """Common axes {of a: of b}, and the axes that only a and only b have."""
        options = self._option("var1"), self._option("var2")
        rows = zip((a, b), options, ("var1", "var2"), strict=True)
        var = [() if o == "auto" else find_axes(s, o, option=n) for s, o, n in rows]
        rest = [[i for i in range(s.rank) if i not in (*r, *v)] for s, r, v in zip((a, b), red, var, strict=True)]
        parts = [Spec([s.dims[i] for i in r], time=None, feature=None) for s, r in zip((a, b), rest, strict=True)]
        found = match(parts[1], parts[0], self.behavior)
        pairs = {rest[0][i]: rest[1][j] for j, i in enumerate(found) if i is not None}
        left = [i for i in rest[0] if i not in pairs], [j for j in rest[1] if j not in pairs.values()]
        result = []
        for s, axes, option, old in zip((a, b), left, options, var, strict=True):
            alone = tuple(i for i in axes if not s.dims[i].is_batch and s.dims[i] not in s.loop)
            if alone and option != "auto":
                names = ", ".join(s.dims[i].name for i in alone)
                text = f"the other source has no counterpart of {names}, which is neither reduced nor a var axis"
                raise self.error(f"{text}; sources: {describe(a)}, {describe(b)}")
            result.append(alone if option == "auto" else old)
        return pairs, result[0], result[1]

    def _out(self, a: Spec, b: Spec, kept: list[tuple[int, int]], pairs: dict[int, int], added: bool) -> Spec:
        both = (a, b)
        dims = [both[s].dims[i] for s, i in kept]
        for at, (s, i) in enumerate(kept):
            if s == 0 and i in pairs and dims[at].size == 1:
                dims[at] = b.dims[pairs[i]]
        time: Role = AUTO
        for s, spec in enumerate(both):
            if time is AUTO and spec.time is not None and (s, spec.time) in kept:
                time = kept.index((s, spec.time))
        if added:
            dims.append(self.dim("dummy", 1, FEATURE))
        return Spec(dims, a.dtype, time=time, loop=a.loop | b.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The product."""
        plan = self.product_plan(sources[0].spec, sources[1].spec)
        a, b = (_dense_tensor(x) for x in sources)
        if self.use_mask and not (a.zero_padded or b.zero_padded):
            dynamic = [i for i in plan.red[0] if a.spec.dims[i].dynamic]
            a = a.with_data(fill_padding(a, 0.0, dynamic)) if dynamic else a
        data = product_of(plan.equation, a, b)
        return joined(data.unsqueeze(-1) if plan.added else data, plan.out, [a, b])


def _dense(x: Spec) -> Spec:
    """A sparse source as its one-hot form: the classes as an axis."""
    return x.with_dtype("float32").with_feature(x.sparse_dim) if isinstance(x.sparse_dim, Dim) else x


def _dense_tensor(x: Tensor) -> Tensor:
    if x.spec.sparse_dim is None:
        return x
    hot = torch.nn.functional.one_hot(x.data.to(torch.int64), x.spec.sparse_dim.size or -1)
    return x.with_data(hot.to(torch.float32), _dense(x.spec))
