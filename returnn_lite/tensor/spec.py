"""`Spec`: what a tensor is without its data – axes in order, their roles, dtype, classes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from returnn_lite.tensor.dim import Dim, batch_dim

T = TypeVar("T")


class Auto(Enum):
    """The one value `AUTO`: "take the default role"."""

    AUTO = "the default role"


AUTO: Final = Auto.AUTO
Role: TypeAlias = int | Dim | Auto | None  # which axis has a role: a position, a Dim, none


class Spec:
    """Axes (`dims`, in physical order), `dtype`, the role axes, and the number of classes of sparse data.

    `time` and `feature` are positions or None. `sparse_dim` is the Dim of the classes of sparse data (then there is
    no feature axis). `loop` lists axes of enclosing loops that a layer moved out of its loop carries along: no axis
    text ever names them, so a layer computes on each of their frames what it would compute inside the loop.
    Immutable; equal when all parts are; hashed once. Read off the axes: `batch` (position or None), `dynamic_dims`.
    """

    __slots__ = ("_hash", "_memo", "batch", "dims", "dtype", "dynamic_dims", "feature", "loop", "sparse_dim", "time")

    def __init__(
        self,
        dims: Iterable[Dim],
        dtype: str = "float32",
        *,
        sparse_dim: Dim | None = None,
        time: Role = AUTO,
        feature: Role = AUTO,
        loop: frozenset[Dim] = frozenset(),
    ) -> None:
        self.dims = tuple(dims)
        self.dtype = dtype
        self.sparse_dim = sparse_dim
        self.loop = loop
        self.batch = next((i for i, d in enumerate(self.dims) if d.is_batch), None)
        self.dynamic_dims = tuple(d for d in self.dims if d.dynamic)
        self.time: int | None = self._default_time() if time is AUTO else self._position(time)
        self.feature: int | None = self._default_feature() if feature is AUTO else self._position(feature)
        self._hash = hash((self.dims, self.dtype, self.sparse_dim, self.time, self.feature, self.loop))
        self._memo: dict[Hashable, Any] = {}

    def _position(self, role: int | Dim | None) -> int | None:
        if role is None:
            return None
        if isinstance(role, Dim):
            return self.dims.index(role) if role in self.dims else None
        return role % len(self.dims)

    def _default_time(self) -> int | None:
        return next((i for i, d in enumerate(self.dims) if d.dynamic and d not in self.loop), None)

    def _default_feature(self) -> int | None:
        if self.sparse_dim is not None:
            return None
        free = [i for i, d in enumerate(self.dims) if not d.is_batch and d not in self.loop and i != self.time]
        static = [i for i in free if not self.dims[i].dynamic]
        return static[-1] if static else None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Spec) or self._hash != other._hash:
            return False
        mine = (self.dims, self.dtype, self.sparse_dim, self.time, self.feature, self.loop)
        return mine == (other.dims, other.dtype, other.sparse_dim, other.time, other.feature, other.loop)

    def __repr__(self) -> str:
        roles = {self.time: "T:", self.feature: "F:"}
        marks = (f"{roles.get(i, '')}{'B' if d.is_batch else repr(d)}" for i, d in enumerate(self.dims))
        sparse = f" sparse_dim={self.sparse_dim}" if self.sparse_dim is not None else ""
        return f"[{', '.join(marks)}] {self.dtype}{sparse}"

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.dims)

    @property
    def sparse(self) -> bool:
        """Whether the values are class indices."""
        return self.sparse_dim is not None

    @property
    def feature_dim(self) -> Dim | None:
        """Dim of the feature axis, or of the classes for sparse data."""
        if self.sparse_dim is not None:
            return self.sparse_dim
        return None if self.feature is None else self.dims[self.feature]

    @property
    def dim(self) -> int | None:
        """Size of the feature axis, or the number of classes for sparse data."""
        found = self.feature_dim
        return None if found is None else found.size

    @property
    def time_dim(self) -> Dim | None:
        """Dim of the time axis."""
        return None if self.time is None else self.dims[self.time]

    @property
    def dynamic(self) -> tuple[int, ...]:
        """Positions of the dynamic axes, loop axes left out."""
        return tuple(i for i, d in enumerate(self.dims) if d.dynamic and d not in self.loop)

    @property
    def spatial(self) -> tuple[int, ...]:
        """Positions of all axes but batch, loop axes and the feature axis (which counts if it is time or dynamic)."""
        return tuple(
            i
            for i, d in enumerate(self.dims)
            if not d.is_batch and d not in self.loop and (i != self.feature or i == self.time or d.dynamic)
        )

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, computed once per `key` for this Spec."""
        found: T | Auto = self._memo.get(key, AUTO)
        if isinstance(found, Auto):
            found = self._memo[key] = make()
        return found

    # --- changed copies -----------------------------------------------------------------------------------------------

    def with_dims(
        self, dims: Iterable[Dim], *, time: Role = None, feature: Role = None, loop: frozenset[Dim] | None = None
    ) -> Spec:
        """A copy with these axes; roles stay with their Dims unless given (Dim, position, None=keep, AUTO=default)."""
        dims = tuple(dims)
        new_time = _kept(self.time_dim, dims) if time is None else time
        feature_dim = None if self.feature is None else self.dims[self.feature]
        new_feature = _kept(feature_dim, dims, last=True) if feature is None else feature
        return self._copy(dims=dims, time=new_time, feature=new_feature, loop=self.loop if loop is None else loop)

    def with_feature(self, dim: Dim) -> Spec:
        """A copy whose feature axis is `dim`: in place of the old one, at the end if there was none (sparse data)."""
        if self.feature is None:
            dims = (*self.dims, dim)
            return self._copy(dims=dims, sparse_dim=None, feature=len(dims) - 1)
        dims = tuple(dim if i == self.feature else d for i, d in enumerate(self.dims))
        return self._copy(dims=dims, sparse_dim=None)

    def with_dtype(self, dtype: str, sparse_dim: Dim | None = None) -> Spec:
        """A copy with another dtype (and classes)."""
        if sparse_dim is not None:
            return self._copy(dtype=dtype, sparse_dim=sparse_dim, feature=None)
        return self._copy(dtype=dtype, sparse_dim=None)

    def permuted(self, order: Sequence[int]) -> Spec:
        """A copy with the axes in another order; roles move along."""
        place = {old: new for new, old in enumerate(order)}
        return self._copy(
            dims=tuple(self.dims[i] for i in order),
            time=_moved(self.time, place),
            feature=_moved(self.feature, place),
        )

    def order(self, *first: int) -> tuple[int, ...]:
        """A permutation: loop axes, then the positions `first`, then all others as they stand."""
        front = tuple(i for i, d in enumerate(self.dims) if d in self.loop)
        return (*front, *first, *(i for i in range(self.rank) if i not in front and i not in first))

    def without(self, axes: Iterable[int], *, time: Role = None, feature: Role = None) -> Spec:
        """A copy without the axes at these positions; a removed role axis leaves its default, unless given."""
        gone = set(axes)
        keep = [i for i in range(self.rank) if i not in gone]
        place = {old: new for new, old in enumerate(keep)}
        if time is None:
            time = AUTO if self.time in gone else _moved(self.time, place)
        if feature is None:
            feature = AUTO if self.feature in gone else _moved(self.feature, place)
        dims = tuple(self.dims[i] for i in keep)
        return self._copy(dims=dims, time=time, feature=feature, loop=self.loop.intersection(dims))

    def roles(self, *, time: Role | Literal["keep"] = "keep", feature: Role | Literal["keep"] = "keep") -> Spec:
        """A copy with other role axes (positions, Dims, None, or AUTO)."""
        return self._copy(
            time=self.time if isinstance(time, str) else time,
            feature=self.feature if isinstance(feature, str) else feature,
        )

    def in_loop(self, dim: Dim) -> Spec:
        """What one frame of a loop over `dim` sees: that axis removed."""
        return self.without([self.dims.index(dim)]) if dim in self.dims else self

    def one_tick(self) -> Spec:
        """What one frame of all loops sees."""
        return self.without([i for i, d in enumerate(self.dims) if d in self.loop]) if self.loop else self

    def with_loop(self, dim: Dim) -> Spec:
        """The loop axis `dim` put in front, as an axis that no axis text names; roles stay."""
        return Spec(
            (dim, *self.dims),
            self.dtype,
            sparse_dim=self.sparse_dim,
            time=None if self.time is None else self.time + 1,
            feature=None if self.feature is None else self.feature + 1,
            loop=self.loop | {dim},
        )

    def leave_loop(self, dim: Dim) -> Spec:
        """The loop axis `dim` as an ordinary axis; it is the time axis if there was none."""
        if dim not in self.loop:
            return self
        time = self.dims.index(dim) if self.time is None else self.time
        return self._copy(loop=self.loop - {dim}, time=time)

    def enter_loop(self, dim: Dim) -> Spec:
        """The ordinary axis `dim` as a loop axis; a time or feature role on it ends."""
        if dim not in self.dims or dim in self.loop:
            return self
        at = self.dims.index(dim)
        inside = self.loop | {dim}
        bare = self._copy(loop=inside, time=None if self.time == at else self.time)
        return bare._copy(time=AUTO) if self.time == at else bare

    def _copy(self, **changes: Any) -> Spec:
        values: dict[str, Any] = {
            "dims": self.dims,
            "dtype": self.dtype,
            "sparse_dim": self.sparse_dim,
            "time": self.time,
            "feature": self.feature,
            "loop": self.loop,
        }
        values.update(changes)
        return Spec(values.pop("dims"), values.pop("dtype"), **values)


def _moved(axis: int | None, place: dict[int, int]) -> int | None:
    return None if axis is None else place[axis]


def _kept(dim: Dim | None, dims: tuple[Dim, ...], *, last: bool = False) -> int | None:
    """Position of `dim` in `dims`, None if it is not there."""
    if dim is None or dim not in dims:
        return None
    return len(dims) - 1 - dims[::-1].index(dim) if last else dims.index(dim)


def scalar(dtype: str = "float32") -> Spec:
    """The Spec of a single number."""
    return Spec((), dtype, time=None, feature=None)


def vector(dtype: str = "float32") -> Spec:
    """The Spec of one number per sequence, (B,)."""
    return Spec((batch_dim,), dtype, time=None, feature=None)
