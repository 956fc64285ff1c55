"""Eval strings that are plain arithmetic, such as `source(0) * 0.5 + source(1)`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

SIGNS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


@dataclass(frozen=True)
class Formula:
    """A function of the sources, and which of them it reads."""

    function: Callable[[Callable[[int], Tensor]], Tensor]
    reads: frozenset[int]

    def __call__(self, sources: Sequence[Tensor]) -> Tensor:
        """The value for float tensors of one type."""
        return self.function(sources.__getitem__)


def formula(text: str) -> Formula | None:
    """What `text` computes, if it has only `source(i)`, numbers, + - * /, and brackets; None for anything else."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return None
    reads: set[int] = set()
    if not _plain(tree.body, reads) or not reads:
        return None
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg("source")], kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.Expression(ast.Lambda(arguments, tree.body))
    code = compile(ast.fix_missing_locations(function), "eval", "eval")
    return Formula(eval(code), frozenset(reads))  # noqa: S307 - nothing but arithmetic


def _plain(node: ast.expr, reads: set[int]) -> bool:
    """Whether it is arithmetic; notes the sources that it reads."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, SIGNS) and _plain(node.left, reads) and _plain(node.right, reads)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _plain(node.operand, reads)
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    match node:
        case ast.Call(func=ast.Name(id="source"), args=[ast.Constant(value=int(i))], keywords=[]) if i >= 0:
            reads.add(i)
            return not isinstance(i, bool)
    return False
