"""Sizes of axes as symbols while layers are recorded, and as numbers when a batch is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from returnn_lite.network.compiling.ports import Place, Refused, Shape

Size: TypeAlias = "int | torch.SymInt"
Numbers: TypeAlias = Callable[[Sequence[int]], object]


class Sizes:
    """The `sizes` of a batch as symbols; each is known to be 2 or more.

    `mode`: in this context tensors have sizes, but no numbers.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.env = ShapeEnv(duck_shape=False)
        self.mode = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self.symbols: list[sympy.Symbol] = []
        self.sizes: list[Size] = []
        for number, size in enumerate(sizes):
            source = ConstantSource(f"size_{number}")
            symbol = self.env.create_symbol(size, source, DimDynamic.DYNAMIC)
            self.symbols.append(symbol)
            self.sizes.append(self.env.create_symintnode(symbol, hint=size, source=source))

    def at(self, place: Place) -> Size:
        """A size by its place."""
        number, size = place
        return size if number < 0 else self.sizes[number]

    def like(self, x: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        """A tensor without numbers in the place of `x`."""
        sizes = list(x.shape) if shape is None else [self.at(place) for place in shape.sizes]
        order = range(x.dim()) if shape is None else shape.order
        with self.mode:
            made = torch.empty(tuple(sizes[i] for i in order), dtype=x.dtype, device=x.device)
            return made.permute([order.index(i) for i in range(len(order))]).requires_grad_(x.requires_grad)

    def fixed(self) -> bool:
        """Whether what was recorded is for one value of a size alone."""
        return any(isinstance(self.env.replacements.get(s), sympy.Integer) for s in self.symbols)

    def conditions(self) -> Numbers:
        """Whether what was recorded is valid for other sizes, as a function of them."""
        return self._compiled(" and ".join(f"({_printed(guard.expr)})" for guard in self.env.guards) or "True")

    def numbers(self, sizes: Sequence[Size]) -> Numbers:
        """Sizes that were computed, a tuple, as a function of those of a batch."""
        texts = [str(n) if isinstance(n, int) else _printed(n.node.expr) for n in sizes]
        return self._compiled(f"({''.join(f'{text}, ' for text in texts)})")

    def _compiled(self, text: str) -> Numbers:
        names = [str(s) for s in self.symbols]
        code = compile(f"lambda {', '.join(names)}: {text}", "<sizes>", "eval")
        function = eval(code, {"math": __import__("math"), "min": min, "max": max})  # noqa: S307 - printed by ourselves
        return lambda given: function(*given)


def _printed(expr: sympy.Basic) -> str:
    try:
        return str(PythonPrinter().doprint(expr))
    except Exception as exc:  # a function that the printer does not know
        raise Refused("computes sizes in an unusual way") from exc
