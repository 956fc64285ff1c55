"""Sums of products over axes, as one batched matrix product planned once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True, slots=True)
class _Operand:
    """How an operand becomes a stack of matrices: permutation (None: as it is), position of the axes that are merged
    into one of a matrix's two axes, and their number, once for rows and once for columns."""

    order: tuple[int, ...] | None
    stack: int
    rows: int
    columns: int

    def matrices(self, x: torch.Tensor) -> torch.Tensor:
        """(stack axes, rows, columns)"""
        if self.order is not None:
            x = x.permute(self.order)
        if self.rows == self.columns == 1:
            return x
        sizes = x.shape
        middle = self.stack + self.rows
        return x.reshape(*sizes[: self.stack], math.prod(sizes[self.stack : middle]), math.prod(sizes[middle:]))


@lru_cache(maxsize=1024)
def _plan(equation: str) -> tuple[_Operand, _Operand, tuple[int, ...] | None]:
    inputs, out = equation.split("->")
    a, b = inputs.split(",")
    stack = [c for c in out if c in a and c in b]
    summed = [c for c in a if c in b and c not in out]
    rows, columns = [c for c in out if c not in b], [c for c in out if c not in a]
    left = _Operand(_order(a, [*stack, *rows, *summed]), len(stack), len(rows), len(summed))
    right = _Operand(_order(b, [*stack, *summed, *columns]), len(stack), len(summed), len(columns))
    return left, right, _order("".join([*stack, *rows, *columns]), list(out))


def _order(letters: str, wanted: list[str]) -> tuple[int, ...] | None:
    """The permutation that brings the axes into the wanted order; None if they are."""
    return None if list(letters) == wanted else tuple(letters.index(c) for c in wanted)


def product(equation: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`torch.einsum` for two operands that share what is summed over; half its overhead, and half its autograd nodes.

    `equation` is e.g. "bt,btf->bf": a letter per axis; letters of both operands that the result lacks are summed over.
    """
    left, right, order = _plan(equation)
    data = left.matrices(a) @ right.matrices(b)
    if left.rows != 1 or right.columns != 1:
        row_sizes = [a.shape[i] for i in (left.order or range(a.dim()))][left.stack : left.stack + left.rows]
        column_sizes = [b.shape[i] for i in (right.order or range(b.dim()))][right.stack + right.rows :]
        data = data.reshape(*data.shape[:-2], *row_sizes, *column_sizes)
    return data if order is None else data.permute(order)
