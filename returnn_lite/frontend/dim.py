"""`Dim`: an axis as configs written with `returnn.frontend` see it, with its sizes in the batch at hand."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import torch

from returnn_lite.errors import did_you_mean
from returnn_lite.frontend import dim_math, layout
from returnn_lite.frontend.dim_op import Op
from returnn_lite.frontend.dim_sizes import Extent
from returnn_lite.frontend.dim_with_sizes import DimWithSizes
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.types import AnyTensor, VocabLike
from returnn_lite.tensor import Dim as CoreDim
from returnn_lite.tensor import batch_dim as core_batch_dim
from returnn_lite.tensor import single_step_dim as core_single_step_dim
from returnn_lite.tensor.dim import BATCH, FEATURE, SPATIAL

_IGNORED = {"batch", "control_flow_ctx", "src_data", "src_axis", "undefined", "special", "dyn_size"}
_CORE_OPS = ("add", "mul", "floordiv", "truediv", "ceildiv", "truediv_left", "ceildiv_left")


class DimTypes:
    """The kinds of axes."""

    Batch = BATCH
    Spatial = SPATIAL
    Time = SPATIAL
    Feature = FEATURE
    Unspecified = None
    Types = (BATCH, SPATIAL, FEATURE)


class Dim(DimWithSizes):
    """An axis. `dimension`: a fixed size, or an int tensor of sizes (one per sequence …), or None if not known yet.

    Equal are an axis and its copies, two batch axes, and results of the same arithmetic; never axes that only agree in
    size or name. Sizes are on the CPU, whatever the device of the data.
    """

    Types = DimTypes
    __slots__ = ("_extent", "_core", "name", "kind", "match_priority", "capacity", "_vocab", "__weakref__")

    def __init__(
        self,
        dimension: Any,
        *,
        name: str | None = None,
        capacity: int | None = None,
        dyn_size_ext: Any = None,
        description: str | None = None,
        kind: str | None = None,
        vocab: Any = None,
        match_priority: int = 0,
        derived_from_op: Op[Dim] | None = None,
        auto_generated: bool = False,
        bounded_by: Any = None,
        **others: Any,
    ) -> None:
        for option in others:
            if option not in _IGNORED:
                known = ["name", "description", "kind", "vocab", "match_priority", "dyn_size_ext", "capacity"]
                raise WrongUse(f"a Dim has no option {option!r}{did_you_mean(option, known)}")
        self.kind, self.match_priority, self.capacity = kind, match_priority, capacity
        self._vocab, self._core = made_vocab(vocab), None
        if isinstance(dimension, bool | str):
            hint = "; a name is given as name=…" if isinstance(dimension, str) else ""
            raise WrongUse(f"`dimension` must be an int, an int tensor or None, but is {dimension!r} instead{hint}")
        if isinstance(dimension, np.integer):
            dimension = int(dimension)
        if not isinstance(dimension, int) and dimension is not None:
            dimension, dyn_size_ext = None, dimension
        if dimension is None and dyn_size_ext is None and self._vocab is not None:
            dimension = self._vocab.num_labels
        self.name = name or description or ("dynamic" if dimension is None else f"static{dimension}")
        sizes = None if dyn_size_ext is None else self._checked_sizes(dyn_size_ext)
        self._extent = Extent(self, dimension, sizes, derived_from_op, auto_generated)

    def _checked_sizes(self, sizes: Any) -> Any:
        """A tensor of sizes; of its own, with the data of the given one. WrongUse if it has no whole numbers."""
        if isinstance(sizes, torch.Tensor | np.ndarray):
            dims = () if sizes.ndim == 0 else (batch_dim,)  # what torch models give: one length per sequence
            sizes = AnyTensor.new(torch.as_tensor(sizes), dims)
            sizes._check(sizes.raw_tensor)
        elif isinstance(sizes, AnyTensor) and sizes.device not in (None, "cpu"):
            sizes = sizes._like(sizes.raw_tensor.cpu())
        if not isinstance(sizes, AnyTensor) or not sizes.dtype.startswith(("int", "uint")):
            shown = getattr(sizes, "dtype", repr(sizes))
            raise WrongUse(f"the sizes of axis {self.name!r} must be ints or a tensor of ints, but are {shown} instead")
        return sizes.copy(sizes.name or self.name)

    # --- identity -----------------------------------------------------------------------------------------------------

    def extent(self) -> Extent[Dim]:
        """What this axis shares with all that are declared the same."""
        found = self._extent
        while found.same is not None:
            found = found.same
        self._extent = found
        return found

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Dim):
            return isinstance(other, CoreDim) and self.core == other
        a, b = self._extent, other._extent
        if a is b:
            return True
        if a.hash != b.hash:
            return False
        a, b = self.extent(), other.extent()
        if a is b or (a.batch and b.batch):
            return True
        return a.auto and b.auto and a.owner.name == b.owner.name

    def __hash__(self) -> int:
        return self._extent.hash

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: Any) -> Dim:
        return self

    def copy(
        self,
        same_as_self: bool = True,
        description: str | None = None,
        kind: str | None = None,
        match_priority: int | None = None,
    ) -> Dim:
        """Another object for the same axis, with another name, kind or priority; a new axis if not `same_as_self`."""
        if not same_as_self and not description:
            raise WrongUse(f"copy(same_as_self=False) of axis {self} must have a `description`")
        found = Dim(self.dimension, name=description or self.name, kind=kind or self.kind, vocab=self._vocab)
        found.match_priority = self.match_priority if match_priority is None else match_priority
        found.capacity = self.capacity
        if same_as_self:
            found._extent = self.extent()
        else:
            sizes = self.dyn_size_ext
            found._extent.given = None if sizes is None else sizes.copy()
        return found

    def get_same_base(self) -> Dim:
        """The axis that this one is declared the same as, itself without any."""
        return self.extent().owner

    def declare_same_as(self, other: Dim) -> None:
        """From now on both are one axis; what is known of one is known of both."""
        mine, theirs = self.extent(), other.extent()
        if mine is theirs:
            return
        sizes = mine.fixed(), theirs.fixed()
        if None not in sizes and sizes[0] != sizes[1]:
            raise WrongUse(f"axis {self.short_repr()} cannot be the same as axis {other.short_repr()}: other sizes")
        if not other.is_dim_known() and self.is_dim_known():
            mine, theirs = theirs, mine
        keep = theirs
        if keep.op is None and mine.op is not None and not keep.batch:
            keep.op = mine.op
        if keep.size is None:
            keep.size = mine.size
        known = keep.sizes()
        if mine.given is not None and (known is None or known.raw_tensor is None):
            keep.given = mine.given
        if keep.owner._vocab is None:
            keep.owner._vocab = mine.owner._vocab
        keep.derived = {**mine.derived, **keep.derived}
        mine.become(keep)
        layout.forget_plans()

    def derive(self, size: int | None, name: str, op: Op[Dim]) -> Dim:
        """An axis that is computed from this one and others."""
        features = all(part.kind == FEATURE or dim_math.constant_value(part) is not None for part in op.inputs)
        return Dim(size, name=name, kind=FEATURE if features else SPATIAL, derived_from_op=op)

    @classmethod
    def constant(cls, value: int) -> Dim:
        """The axis of a number in arithmetic."""
        found: Dim = dim_math.constant(value, _make_constant)
        return found

    @staticmethod
    def of(core: CoreDim) -> Dim:
        """The axis that stands for one of layers; always the same, which has its sizes."""
        if isinstance(core.foreign, Dim):
            return core.foreign
        found = batch_dim if core.is_batch else Dim(core.size, name=core.name, kind=core.kind)
        if not core.is_batch:
            found._core, core.foreign = core, found
        return found

    @property
    def core(self) -> CoreDim:
        """The axis as layers know it."""
        owner = self.extent().owner
        if owner._core is None:
            owner._core = owner._make_core()
        return owner._core.named(self.name).with_priority(self.match_priority)

    _core: CoreDim | None

    def _make_core(self) -> CoreDim:
        if self.is_batch_dim():
            return core_batch_dim
        op, derived = self.derived_from_op, None
        if op is not None and op.kind in _CORE_OPS:
            parts = [part.core if (n := dim_math.constant_value(part)) is None else n for part in op.inputs]
            derived = _core_result(op.kind, parts)
        found = derived if derived is not None else CoreDim(self.dimension, self.name, kind=self.kind or SPATIAL)
        if found.foreign is None:
            found.foreign = self
        return found

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """The fixed size; None for other axes."""
        return self.extent().fixed()

    @size.setter
    def size(self, value: int | None) -> None:
        self.extent().size = value

    @property
    def description(self) -> str:
        """The name."""
        return self.name

    @property
    def dynamic(self) -> bool:
        """Whether it has sizes, or will; not for the batch axis."""
        return self.dimension is None and not self.is_batch_dim()

    @property
    def derived_from_op(self) -> Op[Dim] | None:
        """The operation that it is the result of."""
        return self.extent().op

    @property
    def auto_generated(self) -> bool:
        """Whether no config made it; such axes are equal by name."""
        return self.extent().auto

    @property
    def vocab(self) -> VocabLike:
        """The vocabulary of its classes."""
        return self._vocab if self._vocab is not None else self.extent().owner._vocab

    @vocab.setter
    def vocab(self, value: VocabLike) -> None:
        self._vocab = made_vocab(value)

    def is_batch_dim(self) -> bool:
        """Whether this is the batch axis."""
        return self.kind == BATCH

    def is_feature_dim(self) -> bool:
        """Whether it was made as a feature axis."""
        return self.kind == FEATURE

    def is_spatial_dim(self) -> bool:
        """Whether it was made as a spatial axis."""
        return self.kind == SPATIAL

    def is_constant_static_dim(self) -> bool:
        """Whether it stands for a number in arithmetic."""
        return dim_math.constant_value(self) is not None

    # --- text ---------------------------------------------------------------------------------------------------------

    def short_repr(self) -> str:
        """The axis as errors name it: 'T'['B'(3)] with sizes, 'F'(4) with a fixed size."""
        size = self.dimension
        if size is not None:
            return f"{self.name!r}({size})"
        if self.is_batch_dim() and self.name == "batch":
            return "B"
        sizes = self.dyn_size_ext
        return f"{self.name!r}{'[?]' if sizes is None else show(sizes.dims)}"

    def __repr__(self) -> str:
        return f"Dim{{{self.short_repr()}}}"


def made_vocab(vocab: VocabLike) -> VocabLike:
    """A vocabulary; a dict is made into one."""
    if not isinstance(vocab, dict):
        return vocab
    return importlib.import_module("returnn_lite.vocab.create").vocab_option(vocab, "")  # rarely needed


def _make_constant(value: int, name: str, auto: bool, op: Op[Dim]) -> Dim:
    return Dim(value, name=name, auto_generated=auto, derived_from_op=op)


def _core_result(kind: str, parts: list[Any]) -> CoreDim | None:
    found: CoreDim
    try:
        if kind in ("add", "mul"):
            found = functools.reduce(lambda a, b: a + b if kind == "add" else a * b, parts)
        else:
            divided, by = reversed(parts) if kind.endswith("_left") else parts
            found = divided.ceildiv(by) if kind.startswith("ceildiv") else divided // by
    except (TypeError, AttributeError):
        return None  # arithmetic that layers do not know: an axis of its own
    return found


Dims = tuple[Dim, ...]
batch_dim = Dim(None, name="batch", kind=BATCH)
single_step_dim = Dim(1, name="single-step")
single_step_dim._core = core_single_step_dim
