"""Torch tensors laid out for given axes: permuted, with axes of size 1 put in. The only place that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.types import Axis, RawTensor

Axes = tuple[Axis, ...]
D = TypeVar("D", bound=Axis)


def permutation(have: Sequence[Axis], want: Sequence[Axis]) -> list[int] | None:
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


@dataclass(slots=True)
class Layout:
    """How data gets other axes: their order (None: it stays), where axes of size 1 are put in, how many lead."""

    order: tuple[int, ...] | None
    added: tuple[int, ...]
    leading: int

    def apply(self, raw: RawTensor, leading: bool) -> RawTensor:
        """The data with the axes; without those that lead, which broadcasting adds, if not `leading`."""
        if not isinstance(raw, torch.Tensor):
            raw = raw if self.order is None else raw.transpose(self.order)
            return np.expand_dims(raw, self.added)
        if self.order is not None:
            raw = raw.permute(self.order)
        if leading:
            for i in self.added:
                raw = raw.unsqueeze(i)
        else:
            for i in self.added[self.leading :]:
                raw = raw.unsqueeze(i - self.leading)
        return raw


# How axes are laid out, and joined. Axes are kept with their plans, so there are only the latest ones.
_LAYOUTS: dict[tuple[Axes, Axes], Layout] = {}
_JOINED: dict[tuple[Axes, Axes], tuple[int, ...] | None] = {}  # axes of the second to be added; None: it has all
_FORGET: list[dict[Any, Any]] = [_LAYOUTS, _JOINED]
MOST_PLANS = 1024


def plans() -> dict[Any, Any]:  # Any: each user has keys and plans of its own
    """A dict for plans that hold as long as no axes get equal; to be cleared at MOST_PLANS."""
    found: dict[Any, Any] = {}
    _FORGET.append(found)
    return found


def forget_plans() -> None:
    """To be called when axes get equal."""
    for found in _FORGET:
        found.clear()


def arranged(raw: RawTensor, have: Axes, want: Axes, leading: bool = True) -> RawTensor:
    """The data with the axes `want`, of size 1 where `have` lacks one. WrongUse if `want` lacks an axis of `have`.

    leading: whether axes of size 1 in front are put in, too; broadcasting does without.
    """
    if have is want:
        return raw
    plan = _LAYOUTS.get((have, want))
    if plan is None:
        if len(_LAYOUTS) >= MOST_PLANS:
            _LAYOUTS.clear()
        plan = _layout(have, want)
        if all_different(have) and all_different(want):
            _LAYOUTS[have, want] = plan
    return plan.apply(raw, leading)


def as_rows(raw: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` axes as one, of size 1 for none; also where other axes are empty. Shape: (…, *) -> (N, *)"""
    return raw.flatten(0, count - 1) if count else raw.unsqueeze(0)


def all_different(dims: Axes) -> bool:
    """Whether no axis is there twice; else plans depend on priorities, too, and are not kept."""
    return len(set(dims)) == len(dims)


def _layout(have: Axes, want: Axes) -> Layout:
    order = permutation(have, want)
    if order is None:
        missing = [dim for dim in have if dim not in want] or list(have)
        raise WrongUse(f"the axes {show(want)} must include {show(missing)} of a tensor with the axes {show(have)}")
    present = tuple(i for i in order if i >= 0)
    added = tuple(i for i, at in enumerate(order) if at < 0)
    leading = next((i for i, at in enumerate(order) if at >= 0), len(order))
    return Layout(None if present == tuple(range(len(present))) else present, added, leading)


def joined(first: tuple[D, ...], second: tuple[D, ...]) -> tuple[D, ...]:
    """The axes of a result: of the operand that has all (the first, if both do), else the first's and then the rest."""
    if first is second or not second:
        return first
    if not first:
        return second
    try:
        more = _JOINED[first, second]
    except KeyError:
        if len(_JOINED) >= MOST_PLANS:
            _JOINED.clear()
        more = _JOINED[first, second] = _added(first, second)
    if more is None:
        return second
    return (*first, *(second[i] for i in more)) if more else first


def _added(first: Axes, second: Axes) -> tuple[int, ...] | None:
    more = tuple(i for i, dim in enumerate(second) if dim not in first)
    if not more:
        return () if len(first) >= len(second) else None
    if len(more) == len(second) - len(first) and all(dim in second for dim in first):
        return None
    return more


def axis_of(dims: Axes, dim: Axis, what: object = "a tensor") -> int:
    """The position of an axis; of two equal ones that with the higher priority. WrongUse if it is not there."""
    try:
        first = dims.index(dim)
    except ValueError:
        if dim is None or isinstance(dim, str | int | float | list | tuple):
            raise WrongUse(f"{what}: an axis must be a Dim, one of {show(dims)}, but is {dim!r} instead") from None
        raise WrongUse(f"{what} with the axes {show(dims)} has no axis {dim}") from None
    if dim in dims[first + 1 :]:
        ranked = sorted((i for i, d in enumerate(dims) if d == dim), key=lambda i: -dims[i].match_priority)
        same = [i for i in ranked if dims[i].match_priority == dim.match_priority]
        if dim.match_priority and len(same) == 1:
            return same[0]
        if dims[ranked[0]].match_priority == dims[ranked[1]].match_priority:
            raise WrongUse(f"{what} has the axis {dim} twice in {show(dims)}; give one a match_priority")
        return ranked[0]
    return first


def show(dims: Sequence[object]) -> str:
    """Axes as errors name them."""
    return "[" + ", ".join(getattr(dim, "short_repr", lambda d=dim: repr(d))() for dim in dims) + "]"
