"""Products of tensors, summed over axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.tensor import Tensor


def matmul(a: Tensor, b: Tensor, *, reduce: Dim | Sequence[Dim], use_mask: bool = True) -> Tensor:
    """The sum over `reduce` of a · b. Axes: those that both have (in the order of a), those of a, those of b.

    Padding of `reduce` is summed as it is, which `use_mask=False` must allow. Of an axis that is twice in an operand
    the one with the match priority is taken.
    """
    summed = (reduce,) if isinstance(reduce, Dim) else tuple(reduce)
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise WrongUse(f"matmul needs two Tensors, but got {type(a).__name__} and {type(b).__name__} instead")
    for dim in summed:
        if dim not in a.dims and dim not in b.dims:
            raise WrongUse(f"matmul of {a} and {b}: none has the axis {dim} to be summed over")
        if use_mask and dim.need_masking():
            raise WrongUse(f"matmul of {a} and {b} over {dim}: mask the padding first, then give use_mask=False")
    a, b, summed = _alone(a, b, summed)
    in_a, in_b = [axis_of(a.dims, dim) for dim in summed], [axis_of(b.dims, dim) for dim in summed]
    rest_a = [i for i in range(len(a.dims)) if i not in in_a]
    rest_b = [i for i in range(len(b.dims)) if i not in in_b]
    common = [(i, j) for i in rest_a for j in rest_b if a.dims[i] == b.dims[j]]
    raw, order = _product(a.raw_tensor, b.raw_tensor, in_a, in_b, rest_a, rest_b, common)
    dims = tuple(a.dims[i] if first else b.dims[i] for first, i in order)
    return a._new(raw, dims, name="matmul")


dot = matmul


def _alone(a: Tensor, b: Tensor, summed: tuple[Dim, ...]) -> tuple[Tensor, Tensor, tuple[Dim, ...]]:
    """The operands after the axes that only one of them has are summed."""
    both = tuple(dim for dim in summed if dim in a.dims and dim in b.dims)
    for dim in summed:
        if dim not in both:
            source = a if dim in a.dims else b
            at = axis_of(source.dims, dim)
            rest = source.dims[:at] + source.dims[at + 1 :]
            result = source._new(source.raw_tensor.sum(at, dtype=source.raw_tensor.dtype), rest)
            a, b = (result, b) if source is a else (a, result)
    return a, b, both


def _product(
    a: torch.Tensor,
    b: torch.Tensor,
    in_a: list[int],
    in_b: list[int],
    rest_a: list[int],
    rest_b: list[int],
    common: list[tuple[int, int]],
) -> tuple[torch.Tensor, list[tuple[bool, int]]]:
    """(product, its axes as (of a, position)): common ones, then those of a, then those of b."""
    shared_a, shared_b = [i for i, _ in common], [j for _, j in common]
    own_a = [i for i in rest_a if i not in shared_a]
    own_b = [j for j in rest_b if j not in shared_b]
    order = [*((True, i) for i in shared_a), *((True, i) for i in own_a), *((False, j) for j in own_b)]
    if not common and len(in_a) == 1 and len(own_b) == 1 and b.dim() == 2 and a.dim() > 1:
        last = a if in_a[0] == a.dim() - 1 else a.movedim(in_a[0], -1)
        return torch.nn.functional.linear(last, b if in_b[0] == 1 else b.T), order
    try:
        left = a.permute(shared_a + own_a + in_a)
        right = b.permute(shared_b + in_b + own_b)
        n, m, k = len(shared_a), len(own_a), len(in_a)
        shape = (*left.shape[: n + m], *right.shape[n + k :])
        left = left.reshape(*left.shape[:n], _size(left.shape[n : n + m]), _size(left.shape[n + m :]))
        right = right.reshape(*right.shape[:n], _size(right.shape[n : n + k]), _size(right.shape[n + k :]))
        return torch.matmul(left, right).reshape(shape), order
    except RuntimeError as error:
        raise WrongUse(f"matmul: {str(error).splitlines()[0]}") from None


def _size(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found
