"""Torch tensors laid out for given axes: permuted, with axes of size 1 put in. The only place that does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.frontend.errors import WrongUse

if TYPE_CHECKING:
    from returnn_lite.frontend.dim import Dim

Dims = tuple["Dim", ...]


def permutation(have: Sequence[Dim], want: Sequence[Dim]) -> list[int] | None:
    """For each axis of `want` its position in `have`, -1 if it is not there; None if `have` has others, too.

    An axis that is twice in `have` is taken by the match priorities, then by the order.
    """
    taken = [False] * len(have)
    found = []
    for dim in want:
        best = -1
        for i, other in enumerate(have):
            if taken[i] or not (other is dim or other == dim):
                continue
            if other.match_priority == dim.match_priority:
                best = i
                break
            if best < 0 or other.match_priority > have[best].match_priority:
                best = i
        if best >= 0:
            taken[best] = True
        found.append(best)
    return found if all(taken) else None


def arranged(raw: Any, have: Dims, want: Dims) -> Any:
    """The data with the axes `want`, of size 1 where `have` lacks one. WrongUse if `want` lacks an axis of `have`."""
    if have is want or have == want:
        return raw
    if not have:
        return raw if raw.ndim == 0 and not want else raw.reshape((1,) * len(want))
    order = permutation(have, want)
    if order is None:
        missing = [dim for dim in have if dim not in want] or list(have)
        raise WrongUse(f"the axes {show(want)} must include {show(missing)} of a tensor with the axes {show(have)}")
    present = [i for i in order if i >= 0]
    if present != list(range(len(present))):
        raw = raw.permute(present) if isinstance(raw, torch.Tensor) else raw.transpose(present)
    if len(present) < len(want):
        index = tuple(slice(None) if i >= 0 else None for i in order)
        raw = raw[index]
    return raw


def joined(first: Dims, second: Dims) -> Dims:
    """The axes of a result: of the operand that has all (the first, if both do), else the first's and then the rest."""
    if first is second or not second:
        return first
    if not first:
        return second
    more = [dim for dim in second if dim not in first]
    if not more:
        return first if len(first) >= len(second) else second
    if len(more) == len(second) - len(first) and all(dim in second for dim in first):
        return second
    return (*first, *more)


def axis_of(dims: Dims, dim: Dim, what: str = "") -> int:
    """The position of an axis; of two equal ones that with the higher priority. WrongUse if it is not there."""
    if dims.count(dim) > 1:
        ranked = sorted((i for i, d in enumerate(dims) if d == dim), key=lambda i: -dims[i].match_priority)
        same = [i for i in ranked if dims[i].match_priority == dim.match_priority]
        if dim.match_priority and len(same) == 1:
            return same[0]
        if dims[ranked[0]].match_priority == dims[ranked[1]].match_priority:
            raise WrongUse(f"{what or 'a tensor'} has the axis {dim} twice in {show(dims)}; give one a match_priority")
        return ranked[0]
    try:
        return dims.index(dim)
    except ValueError:
        raise WrongUse(f"{what or 'a tensor'} with the axes {show(dims)} has no axis {dim}") from None


def show(dims: Sequence[Any]) -> str:
    """Axes as errors name them."""
    return "[" + ", ".join(getattr(dim, "short_repr", lambda d=dim: repr(d))() for dim in dims) + "]"
