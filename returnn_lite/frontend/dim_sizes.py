"""`Extent`: how long an axis is in the batch at hand – a number, or sizes – and what is computed from it, kept."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from returnn_lite.frontend import sizes_clock
from returnn_lite.frontend.dim_op import Op
from returnn_lite.frontend.layout import arranged, joined
from returnn_lite.frontend.types import AnyTensor, Axis

CPU = torch.device("cpu")
_SERIALS = itertools.count()
S = TypeVar("S", bound="SizedAxis")
T = TypeVar("T")


class SizedAxis(Axis):
    """An axis with an extent, which may be computed from others."""

    __slots__ = ()

    def extent(self: S) -> Extent[S]:
        """What this axis shares with all that are declared the same."""
        raise NotImplementedError

    @property
    def derived_from_op(self: S) -> Op[S] | None:
        """The operation that it is the result of."""
        raise NotImplementedError

    def derive(self: S, size: int | None, name: str, op: Op[S]) -> S:
        """An axis that is computed from this one and others."""
        raise NotImplementedError

    @classmethod
    def constant(cls: type[S], value: int) -> S:
        """The axis of a number in arithmetic."""
        raise NotImplementedError


class Extent(Generic[S]):
    """What all equal Dims share. `owner`: the Dim that it was made for; `same`: the extent that replaced this one.

    `size`: a fixed size, else None. `given`: the sizes as they were set; those of a derived axis (`op`) are computed
    when they are asked for, and again when the sizes that they come from are others.
    `derived`: the axes that were computed from this one, by operation.
    """

    __slots__ = (
        *("owner", "same", "size", "_given", "op", "auto", "batch", "derived", "hash", "kept_for", "kept"),
        *("serial", "computed", "computed_for", "checked", "merged", "__weakref__"),
    )

    def __init__(self, owner: S, size: int | None, given: AnyTensor | None, op: Op[S] | None, auto: bool) -> None:
        self.owner, self.size, self._given, self.op, self.auto = owner, size, given, op, auto
        self.checked = -1  # when `computed` was found to hold
        self.serial = next(_SERIALS)
        self.same: Extent[S] | None = None
        self.batch = owner.is_batch_dim()
        self.derived: dict[Any, S] = {}
        # The same in all processes where it is not by identity.
        self.hash = 1 if self.batch else zlib.crc32(owner.name.encode()) if auto else id(self) >> 4
        self.kept_for: Any = None  # the raw sizes that `kept` was computed from
        self.kept: dict[Any, Any] = {}
        self.merged: list[Extent[S]] = []  # those that this one replaced
        self.computed: AnyTensor | None = None
        self.computed_for: tuple[Any, ...] = ()

    def become(self, other: Extent[S]) -> None:
        """From now on the other one stands for this one; equal axes have the same hash."""
        self.same = other
        other.merged += [self, *self.merged]
        for extent in other.merged:
            extent.hash = other.hash

    @property
    def given(self) -> AnyTensor | None:
        """The sizes as they were set."""
        return self._given

    @given.setter
    def given(self, sizes: AnyTensor | None) -> None:
        self._given = sizes
        sizes_clock.tick()

    # --- sizes --------------------------------------------------------------------------------------------------------

    def fixed(self) -> int | None:
        """The fixed size; of a derived axis as soon as those of its parts are known."""
        if self.size is None and self.op is not None and self.given is None:
            parts = [part.dimension for part in self.op.inputs]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                self.size = self.op.on_numbers(known, clip=False)
        return self.size

    def sizes(self) -> AnyTensor | None:
        """The sizes; None for a fixed size, and while they are not known."""
        if self._given is not None or self.op is None or self.size is not None:
            return self._given
        if self.checked == sizes_clock.now():
            return self.computed
        if self.fixed() is not None:
            return None
        now = sizes_clock.now()
        parts = [part.dimension if part.is_static() else part.dyn_size_ext for part in self.op.inputs]
        raws = tuple(part if isinstance(part, int) else None if part is None else part.raw_tensor for part in parts)
        if any(raw is None for raw in raws):
            self.computed, self.computed_for, self.checked = None, (), now
            return None
        same = len(raws) == len(self.computed_for) and all(map(_is, raws, self.computed_for))
        if not same:
            self.computed, self.computed_for = self._compute(parts), raws
        self.checked = now
        return self.computed

    def _compute(self, parts: list[Any]) -> AnyTensor:
        sized = [part for part in parts if not isinstance(part, int)]
        first = sized[0]
        dims = first.dims
        for part in sized[1:]:
            dims = joined(dims, part.dims)
        raws = [part if isinstance(part, int) else arranged(as_torch(part), part.dims, dims) for part in parts]
        values = self.op.on_tensors(raws).to(as_torch(first).dtype) if self.op is not None else as_torch(first)
        return AnyTensor.new(values, dims, name=self.owner.name)

    def memo(self, key: object, compute: Callable[[], T]) -> T:
        """What `compute` gives, kept until the sizes are others."""
        ext = self.sizes()
        raw = None if ext is None else ext.raw_tensor
        if raw is not self.kept_for:
            self.kept, self.kept_for = {}, raw
        found: T | None = self.kept.get(key)
        if found is None:
            found = self.kept[key] = compute()
        return found

    def forget(self) -> None:
        """No sizes any more, and nothing that was computed from them; derived axes stay the same axes."""
        self.given = self.computed = self.kept_for = None
        self.kept, self.computed_for = {}, ()
        for dim in self.derived.values():
            dim.reset_eager()

    def changed(self) -> None:
        """To be called after the sizes were changed in place."""
        sizes_clock.tick()
        self.kept, self.computed_for = {}, ()
        for dim in self.derived.values():
            dim.extent().changed()


def _is(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, int) and a == b)


def as_torch(sizes: AnyTensor) -> torch.Tensor:
    """Sizes as a torch tensor; those of callbacks are numpy's."""
    raw = sizes.raw_tensor
    return raw if isinstance(raw, torch.Tensor) else torch.as_tensor(np.asarray(raw))


def largest(sizes: AnyTensor) -> torch.Tensor:
    """The maximum of all sizes; 0 if there are none."""
    raw = as_torch(sizes)
    return raw if raw.dim() == 0 else raw.max() if raw.numel() else raw.new_zeros(())


def valid(dim: Axis, sizes: AnyTensor, device: torch.device) -> torch.Tensor:
    """True at the positions below the sizes. Shape: (*axes of the sizes, size of the axis)

    Where the sizes are padding themselves, all positions count.
    """
    raw, top = as_torch(sizes), dim.padded_size()
    for inner in sizes.dims:
        if inner.need_masking():
            inside = inner.get_mask(device="cpu")
            raw = torch.where(arranged(inside.raw_tensor, inside.dims, sizes.dims), raw, top)
    raw = raw.to(device, non_blocking=True)
    return torch.arange(top, device=device, dtype=raw.dtype) < raw.unsqueeze(-1)
