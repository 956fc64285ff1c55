"""Products of tensors, summed over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse, kind
from returnn_lite.frontend.layout import MOST_PLANS, all_different, axis_of, plans
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.linear import linear


def matmul(a: Tensor, b: Tensor, *, reduce: Dim | Sequence[Dim], use_mask: bool = True) -> Tensor:
    """The sum over `reduce` of a · b. Axes: those that both have (in the order of a), those of a, those of b.

    Padding of `reduce` is summed as it is, which `use_mask=False` must allow. Of an axis that is twice in an operand
    the one with the match priority is taken.
    """
    summed = (reduce,) if isinstance(reduce, Dim) else tuple(reduce)
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise WrongUse(f"matmul needs two Tensors, but got {kind(b if isinstance(a, Tensor) else a)}")
    if use_mask:
        for dim in summed:
            if dim.need_masking():
                raise WrongUse(f"matmul of {a} and {b} over {dim}: mask the padding first, then give use_mask=False")
    key = (a._dims, b._dims, summed)
    plan = _PLANS.get(key)
    if plan is None:
        for dim in summed:
            if dim not in a.dims and dim not in b.dims:
                raise WrongUse(f"matmul of {a} and {b}: none has the axis {dim} to be summed over")
        plan = _plan(*key)
        if len(_PLANS) >= MOST_PLANS:
            _PLANS.clear()
        if all_different(a.dims) and all_different(b.dims):
            _PLANS[key] = plan
    try:
        return a._new(plan.compute(a._raw, b._raw), plan.dims, name="matmul")
    except RuntimeError as error:
        raise WrongUse(f"matmul of {a} and {b}: {str(error).splitlines()[0]}") from None


dot = matmul


@dataclass(slots=True)
class _Plan:
    """What to do: sums of what one operand has alone, orders of axes, numbers of common, own and summed axes."""

    dims: Dims
    alone_a: list[int]
    alone_b: list[int]
    order_a: tuple[int, ...]
    order_b: tuple[int, ...]
    common: int
    own_a: int
    own_b: int
    summed: int
    matrix: bool  # whether b is a matrix for the last axis of a
    inputs_last: bool  # whether the summed axis of that matrix is its last

    def compute(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The product of the data."""
        if self.alone_a:
            a = a.sum(self.alone_a, dtype=a.dtype)
        if self.alone_b:
            b = b.sum(self.alone_b, dtype=b.dtype)
        if self.matrix:
            last = a if self.order_a == tuple(range(a.dim())) else a.permute(self.order_a)
            return linear(last, b if self.inputs_last else b.T)
        left, right = a.permute(self.order_a), b.permute(self.order_b)
        n = self.common
        if (self.own_a, self.own_b, self.summed) == (1, 1, 1):
            return torch.matmul(left, right)
        shape = (*left.shape[: n + self.own_a], *right.shape[n + self.summed :])
        batch, k = left.shape[:n], math.prod(left.shape[n + self.own_a :])
        left = left.reshape(*batch, math.prod(left.shape[n : n + self.own_a]), k)
        right = right.reshape(*batch, k, math.prod(right.shape[n + self.summed :]))
        return torch.matmul(left, right).reshape(shape)


_PLANS: dict[tuple[Dims, Dims, Dims], _Plan] = plans()


def _plan(a: Dims, b: Dims, summed: Dims) -> _Plan:
    both = [dim for dim in summed if dim in a and dim in b]
    alone_a = [axis_of(a, dim) for dim in summed if dim not in b]
    alone_b = [axis_of(b, dim) for dim in summed if dim not in a]
    a = tuple(dim for i, dim in enumerate(a) if i not in alone_a)
    b = tuple(dim for i, dim in enumerate(b) if i not in alone_b)
    in_a, in_b = [axis_of(a, dim) for dim in both], [axis_of(b, dim) for dim in both]
    rest_a = [i for i in range(len(a)) if i not in in_a]
    rest_b = [i for i in range(len(b)) if i not in in_b]
    common = [(i, j) for i in rest_a for j in rest_b if a[i] == b[j]]
    own_a = [i for i in rest_a if i not in [i for i, _ in common]]
    own_b = [j for j in rest_b if j not in [j for _, j in common]]
    dims = (*(a[i] for i, _ in common), *(a[i] for i in own_a), *(b[j] for j in own_b))
    matrix = not common and len(in_a) == 1 and len(own_b) == 1 and len(b) == 2 and len(a) > 1
    order_a = tuple([i for i, _ in common] + own_a + in_a)
    order_b = tuple([j for _, j in common] + in_b + own_b)
    counts = (len(common), len(own_a), len(own_b), len(both))
    return _Plan(dims, alone_a, alone_b, order_a, order_b, *counts, matrix, matrix and in_b[0] == 1)
