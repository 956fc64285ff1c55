"""`Dim`: one axis as an object, equal when it is the same object or derived by the same arithmetic from equal Dims."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, SPATIAL, FEATURE = "batch", "spatial", "feature"
Part = "Dim | int"


class Dim:
    """One axis: a static `size`, or None for an axis whose lengths differ per sequence (these live in the Tensor).

    `Dim(5, name="heads")` and `Dim(None, name="time")` are new axes, each equal only to itself. Arithmetic (`+ - *`,
    `ceildiv`, `//`) gives derived Dims: `time.ceildiv(2)` made twice is the same axis, which is why two convolutions
    with one stride can be added. `kind` is "batch", "spatial" or "feature"; it never decides equality.

    A config may give a new Dim to an axis that a layer computes: `declare` notes what it stands for, in each net whose
    layers do so; it stays equal to itself alone, and `same_axis` knows what is meant.

    `priority`: a tensor may have an axis twice (a square matrix); the one of higher priority is meant first.
    """

    __slots__ = ("__weakref__", "_hash", "_meanings", "foreign", "kind", "name", "op", "parts", "priority", "size")

    def __init__(
        self,
        dimension: int | None = None,
        name: str = "",
        *,
        kind: str = SPATIAL,
        derived: tuple[str, tuple[Dim | int, ...]] | None = None,
    ) -> None:
        self.size = dimension
        self.name = name or ("dynamic" if dimension is None else f"static{dimension}")
        self.kind = kind
        self.foreign: object = None  # what stands for it in another language, if anything does
        self.op, self.parts = derived if derived else ("", ())
        self._hash = self._made_hash()
        self._meanings: WeakValueDictionary[int, Dim] | None = None
        self.priority = 0

    def _made_hash(self) -> int:
        """Of what decides equality: the arithmetic, or the object itself; the name or kind of a "same" Dim does not."""
        if not self.op:
            return hash(id(self))
        parts = tuple(p if isinstance(p, int) else p._hash for p in self.parts)
        return parts[0] if self.op == "same" else hash((self.op, *parts))

    @property
    def dimension(self) -> int | None:
        """`size`, as configs call it."""
        return self.size

    @property
    def description(self) -> str:
        """`name`, as configs call it."""
        return self.name

    @property
    def base(self) -> Dim:
        """The Dim that this one is a view of (with another name or kind), else itself."""
        found: Dim = self
        while found.op == "same" and isinstance(part := found.parts[0], Dim):
            found = part
        return found

    @property
    def dynamic(self) -> bool:
        """Whether the lengths differ per sequence (never for the batch axis)."""
        return self.size is None and self.kind != BATCH

    @property
    def is_batch(self) -> bool:
        """Whether this is the batch axis."""
        return self.kind == BATCH

    @property
    def meanings(self) -> tuple[Dim, ...]:
        """The axes that this one was declared to be, the latest first; those that nothing else holds are forgotten."""
        known = self.base._meanings
        return () if known is None else tuple(known.values())[::-1]

    def sized(self) -> Dim:
        """This Dim, or where it stands for an axis with a size, a view of it with that size."""
        sizes = (dim.size for dim in self.meanings if dim.size is not None)
        found = self.size if self.size is not None else next(sizes, None)
        return self if found is None else self.with_size(found)

    def declare(self, dim: Dim) -> None:
        """From now on this Dim of a config stands for `dim`, which a layer computes and holds."""
        base = self.base
        base._meanings = WeakValueDictionary() if base._meanings is None else base._meanings
        base._meanings[id(dim)] = dim

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Dim):
            return NotImplemented  # an axis object of another language knows
        return self._hash == other._hash and _alike(self, other)

    def __repr__(self) -> str:
        return f"{self.name}({'?' if self.size is None else self.size})"

    def __deepcopy__(self, memo: object) -> Dim:
        return self

    def __reduce__(self) -> str | tuple[object, ...]:
        if self is batch_dim:
            return "batch_dim"  # the one of this module
        return _restored, (self.size, self.name, self.kind, self.op, self.parts)

    def __copy__(self) -> Dim:
        return self

    def as_kind(self, kind: str) -> Dim:
        """A view of this Dim with another kind; equal to it."""
        return self if kind == self.kind else self._view(kind=kind)

    def named(self, name: str) -> Dim:
        """A view of this Dim with another name, found by both; equal to it."""
        return self if name == self.name else self._view(name=name)

    def with_size(self, size: int) -> Dim:
        """A view of this Dim that has a size; equal to it."""
        return self if size == self.size else self._view(size=size)

    def with_priority(self, priority: int) -> Dim:
        """A view of this Dim with another priority; equal to it."""
        found = self._view()
        found.priority = priority
        return self if priority == self.priority else found

    def _view(self, *, size: int | None = None, name: str = "", kind: str = "") -> Dim:
        size = self.size if size is None else size
        found = Dim(size, name or self.name, kind=kind or self.kind, derived=("same", (self,)))
        found.priority = self.priority
        return found

    def __add__(self, other: Dim | int) -> Dim:
        return _derive("+", (self, other), _pair_name(self, "+", other))

    def __radd__(self, other: int) -> Dim:
        return _derive("+", (self, other), _pair_name(other, "+", self))

    def __sub__(self, other: int) -> Dim:
        return _derive("+", (self, -other), f"{_wrapped(self)}+{-other}")

    def __mul__(self, other: Dim | int) -> Dim:
        return _derive("*", (self, other), _pair_name(self, "*", other))

    def __rmul__(self, other: int) -> Dim:
        return _derive("*", (self, other), _pair_name(other, "*", self))

    def __floordiv__(self, other: int) -> Dim:
        return _derive("//", (self, other), f"{_wrapped(self)}//{other}")

    def ceildiv(self, other: int) -> Dim:
        """This length divided by `other`, rounded up."""
        return _derive("ceildiv", (self, other), f"⌈{_wrapped(self)}/{other}⌉")

    def window(self, size: int, stride: int = 1) -> Dim:
        """Number of windows of `size` that fit: max(0, ceil((n - size + 1) / stride))."""
        left = (size - 1) // 2
        return (-left + self - (size - 1 - left)).ceildiv(stride)

    def clipped(self, other: int) -> Dim:
        """The smaller of this length and `other`."""
        return _derive("min", (self, other), f"min({self.name},{other})")

    def combine(self, values: Callable[[Dim], int]) -> int:
        """This length as a number, given the numbers of the Dims it is derived from (at least 0)."""
        return apply(self.op, [p if isinstance(p, int) else values(p) for p in self.parts])


batch_dim = Dim(None, "batch", kind=BATCH)
single_step_dim = Dim(1, "single-step")  # as the axis of a layer: its source is one frame of a sequence


def same_axis(a: Dim, b: Dim) -> bool:
    """Whether two Dims mean one axis: they are equal, or were declared to be."""
    if a == b or (a.is_batch and b.is_batch):
        return True
    found = {a, *a.meanings}
    return b in found or any(dim in found for dim in b.meanings)


def _restored(size: int | None, name: str, kind: str, op: str, parts: tuple[Dim | int, ...]) -> Dim:
    """A Dim read from a file."""
    return Dim(size, name, kind=kind, derived=(op, parts) if op else None)


def apply(op: str, parts: list[int]) -> int:
    """The arithmetic of derived Dims on numbers; lengths are never negative."""
    if op == "+":
        return max(sum(parts), 0)
    if op == "*":
        return math.prod(parts)
    if op == "ceildiv":
        return -(-parts[0] // parts[1])
    if op == "//":
        return parts[0] // parts[1]
    if op == "min":
        return min(parts)
    if op == "same":
        return parts[0]
    raise ValueError(f"`op` must be one of + * ceildiv // min same, but is {op!r} instead")


def _derive(op: str, parts: tuple[Dim | int, ...], name: str) -> Dim:
    """The derived Dim in its canonical form, so that equal arithmetic gives equal Dims."""
    if op in ("+", "*"):
        neutral = 0 if op == "+" else 1
        parts = _merge(op, parts)
        if len(parts) == 1 and isinstance(parts[0], Dim):
            return parts[0]
        if len(parts) == 2 and parts[1] == neutral and isinstance(parts[0], Dim):
            return parts[0]
    elif op in ("ceildiv", "//") and parts[1] == 1 and isinstance(parts[0], Dim):
        return parts[0]
    first = next(p for p in parts if isinstance(p, Dim)).base
    if op in ("ceildiv", "//") and first.op == "*" and isinstance(parts[1], int):
        factor = first.parts[-1]
        if isinstance(factor, int) and factor % parts[1] == 0:
            return _derive("*", (*first.parts[:-1], factor // parts[1]), name)
    if op == "ceildiv" and first.op == "ceildiv" and isinstance(first.parts[1], int) and isinstance(parts[1], int):
        return _derive(op, (first.parts[0], first.parts[1] * parts[1]), name)
    sizes = [p if isinstance(p, int) else p.size for p in parts]
    known = [s for s in sizes if s is not None]
    size = apply(op, known) if len(known) == len(sizes) else None
    kind = FEATURE if all(p.kind == FEATURE for p in parts if isinstance(p, Dim)) else SPATIAL
    if op == "+" and size is None and isinstance(parts[-1], int):
        return Dim(None, name, kind=SPATIAL, derived=(op, parts))
    return Dim(size, name, kind=kind if size is not None else SPATIAL, derived=(op, parts))


def _merge(op: str, parts: tuple[Dim | int, ...]) -> tuple[Dim | int, ...]:
    """Flattens nested sums (products); numbers come last as one.

    Sums stay nested where a clip at 0 could matter: `x - 2 + 2` is no `x`, but `x + 2 - 2` is.
    """
    dims: list[Dim] = []
    numbers: list[int] = []
    shortens = False
    for part in parts:
        if isinstance(part, int):
            numbers.append(part)
        elif part.base.op == op:
            dims += [p for p in part.base.parts if isinstance(p, Dim)]
            nested = [p for p in part.base.parts if isinstance(p, int)]
            shortens = shortens or any(p < 0 for p in nested)
            numbers += nested
        else:
            dims.append(part)
    if op == "+" and shortens and max(numbers) > 0:
        return parts
    if op == "+":
        return (*dims, sum(numbers)) if numbers else tuple(dims)
    if any(dim.size is None for dim in dims):
        dims = [dim for dim in dims if dim.size != 1]
    dims.sort(key=hash)
    return (*dims, math.prod(numbers)) if numbers else tuple(dims)


def _alike(one: Dim, other: Dim) -> bool:
    """Whether two Dims are the same object, or derived by the same arithmetic, however deep it is."""
    waiting, seen = [(one.base, other.base)], set[tuple[int, int]]()
    while waiting:
        a, b = waiting.pop()
        if a is b or (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if not a.op or a.op != b.op or a._hash != b._hash or len(a.parts) != len(b.parts):
            return False
        for p, q in zip(a.parts, b.parts, strict=True):
            if isinstance(p, int) or isinstance(q, int):
                if p is not q and not (isinstance(p, int) and p == q):
                    return False
            else:
                waiting.append((p.base, q.base))
    return True


def _pair_name(a: Dim | int, op: str, b: Dim | int) -> str:
    return f"{_wrapped(a)}{op}{_wrapped(b)}"


def _wrapped(part: Dim | int) -> str:
    if isinstance(part, int):
        return str(part)
    return f"({part.name})" if any(c in part.name for c in "+-/ ") else part.name
