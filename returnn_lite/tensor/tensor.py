"""`Tensor`: a Spec with torch data, and the lengths of its dynamic axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from returnn_lite.tensor.dim import Dim
from returnn_lite.tensor.lengths import Lengths, derive
from returnn_lite.tensor.spec import Spec

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
    "complex64": torch.complex64,
}
DTYPE_NAMES = {v: k for k, v in DTYPES.items()}


@dataclass(eq=False, slots=True)
class Beam:
    """The hypotheses after one search choice; folded into the batch axis as B * size, beam index fastest.

    `source` int [B * size]: for every hypothesis the row it extends, counted in the parent's batch axis (the plain
    batch without a parent). `scores` float [B, size]: natural log, higher is better. `decided`: only the best one was
    kept. `gold` int [B]: which of them is the reference's, where the search keeps it.
    """

    size: int
    scores: torch.Tensor
    source: torch.Tensor
    parent: Beam | None = None
    decided: bool = False
    gold: torch.Tensor | None = None
    in_place: bool = False  # whether every hypothesis extends its own row


@dataclass(eq=False, slots=True)
class PreActivation:
    """What a layer's output was before its activation: losses and safe_log work on it for exact logarithms."""

    activation: str
    data: torch.Tensor


@dataclass(eq=False, slots=True)
class Tensor:
    """`data` with axes `spec`; `lengths` of the dynamic axes; what else layers hand on.

    `beam`: the search hypotheses that the batch axis holds. `pre`: the values before the activation. `state`: the last
    hidden state of a recurrent layer, key -> (B, H). `sequence_loss`: (B,) of layers such as fast_bw. `zero_padded`:
    frames after the sequence ends are known to be 0. `parts`: further outputs of a layer, by sub-layer name.
    `single`: what it is tiled from, if all hypotheses of a sequence are the same.
    """

    data: torch.Tensor
    spec: Spec
    lengths: Mapping[Dim, Lengths]
    beam: Beam | None = None
    pre: PreActivation | None = None
    state: Mapping[str, torch.Tensor] | None = None
    sequence_loss: torch.Tensor | None = None
    zero_padded: bool = False
    parts: Mapping[str, Tensor] | None = None
    single: Tensor | None = None
    _tiles: dict[int, Tensor] | None = None

    @property
    def shape(self) -> torch.Size:
        """Sizes of all axes."""
        return self.data.shape

    @property
    def device(self) -> torch.device:
        """Where the data lies."""
        return self.data.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the data."""
        return self.data.dtype

    def length(self, dim: Dim) -> Lengths:
        """Lengths of a dynamic axis, derived if need be. Raises KeyError for an axis nobody knows."""
        return derive(dim, self.lengths)

    def length_per_seq(self, dim: Dim) -> Lengths:
        """Lengths (B,) of an axis, also of a static one, which is full everywhere."""
        if dim.dynamic:
            return self.length(dim)
        size, batch = self.size(dim), 1 if self.spec.batch is None else self.shape[self.spec.batch]
        return Lengths(torch.full((batch,), size, dtype=torch.int32, device=self.device), size)

    def size(self, dim: Dim) -> int:
        """Padded size of an axis of this tensor."""
        return self.shape[self.spec.dims.index(dim)]

    def with_data(self, data: torch.Tensor, spec: Spec | None = None, **changes: object) -> Tensor:
        """A Tensor of the same sequences with new data (and Spec); lengths of new axes follow. Side entries end."""
        lengths = self.lengths
        if spec is None:
            spec = self.spec
        elif spec.dynamic_dims:
            missing = [d for d in spec.dynamic_dims if d not in lengths]
            if missing:
                lengths = {**lengths, **{d: derive(d, lengths) for d in missing}}
        return Tensor(data, spec, lengths, self.beam, **changes)  # type: ignore[arg-type]

    def with_lengths(self, more: Mapping[Dim, Lengths]) -> Tensor:
        """A copy that knows more lengths."""
        changed = self.copy()
        changed.lengths = {**self.lengths, **more}
        return changed

    def copy(self) -> Tensor:
        """A shallow copy with all side entries."""
        side = (self.pre, self.state, self.sequence_loss, self.zero_padded, self.parts)
        return Tensor(self.data, self.spec, self.lengths, self.beam, *side)  # `dataclasses.replace` is ten times slower

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensor:
        """A copy with changed data, and the same change of what they were before the activation."""
        changed = self.copy()
        changed.data = change(self.data)
        if self.pre is not None:
            changed.pre = PreActivation(self.pre.activation, change(self.pre.data))
        return changed

    def permuted(self, order: tuple[int, ...]) -> Tensor:
        """The axes in another order."""
        if order == tuple(range(len(order))):
            return self
        changed = self.each(lambda data: data.permute(order) if data.dim() == len(order) else data)
        changed.spec = self.spec.memo(("permuted", order), lambda: self.spec.permuted(order))
        return changed

    def batch_major(self) -> Tensor:
        """The batch axis moved to the front (no change without one)."""
        at = self.spec.batch
        if at is None or at == 0:
            return self
        return self.permuted((at, *(i for i in range(self.spec.rank) if i != at)))

    def batch_front(self) -> Tensor:
        """The batch axis moved to the front, behind loop axes only (no change without one)."""
        at = self.spec.batch
        return self if at is None else self.permuted(self.spec.order(at))

    def axis_last(self, axis: int) -> Tensor:
        """The axis at this position moved to the end."""
        return self.permuted((*(i for i in range(self.spec.rank) if i != axis), axis))

    # --- beams --------------------------------------------------------------------------------------------------------

    def gather_batch(self, index: torch.Tensor, beam: Beam | None) -> Tensor:
        """The batch entries `index` (int [B']), as hypotheses of `beam`."""
        return self.taken(index, beam, {d: n.gather(index) for d, n in self.lengths.items()})

    def taken(self, index: torch.Tensor, beam: Beam | None, lengths: Mapping[Dim, Lengths]) -> Tensor:
        """The batch entries `index`, whose lengths are known."""
        at = self.spec.batch
        if at is None:
            return self
        changed = self.each(lambda data: data.index_select(at, index))
        changed.lengths = lengths
        changed.beam = beam
        if self.state is not None:
            changed.state = {k: v.index_select(0, index) for k, v in self.state.items()}
        return changed

    def tile(self, beam: Beam) -> Tensor:
        """Every sequence repeated for the hypotheses of `beam`; done once per beam size."""
        if self.spec.batch is None:
            return self
        if self._tiles is None:
            self._tiles = {}
        if beam.size not in self._tiles:
            self._tiles[beam.size] = self._repeated(beam.size, self.spec.batch)
        tiled = self._tiles[beam.size].copy()
        tiled.beam = beam
        tiled.single = self if beam.size > 1 else None
        return tiled

    def _repeated(self, count: int, at: int) -> Tensor:
        """Every sequence `count` times."""
        if count == 1:
            return self.copy()
        changed = self.each(lambda data: data.repeat_interleave(count, at))
        changed.lengths = {d: n.tile(count) for d, n in self.lengths.items()}
        if self.state is not None:
            changed.state = {k: v.repeat_interleave(count, 0) for k, v in self.state.items()}
        return changed


def ancestor_index(beam: Beam, older: Beam | None) -> torch.Tensor | None:
    """For every hypothesis of `beam` its row in the batch of `older`; None if the rows are the same.

    Raises ValueError when `older` is not in the past of `beam`.
    """
    index = None
    current: Beam | None = beam
    while current is not older:
        if current is None:
            raise ValueError("the beam is not a successor of the older beam")
        if not current.in_place:
            index = current.source if index is None else current.source.index_select(0, index)
        current = current.parent
    return index


def is_successor(beam: Beam | None, older: Beam | None) -> bool:
    """Whether `older` (None: the plain batch) is `beam` itself or in its past."""
    while beam is not None:
        if beam is older:
            return True
        beam = beam.parent
    return older is None


def to_beam(x: Tensor, beam: Beam | None) -> Tensor:
    """`x` with its batch entries re-ordered (or repeated) to the hypotheses of `beam`."""
    if x.beam is beam or beam is None or x.spec.batch is None:
        return x
    if x.beam is None:
        return x.tile(beam)
    index = ancestor_index(beam, x.beam)
    if index is not None:
        return x.taken(index, beam, {d: n.following(index, beam.size) for d, n in x.lengths.items()})
    same = x.copy()
    same.beam = beam
    return same


def latest_beam(tensors: list[Tensor]) -> Beam | None:
    """The newest of the beams of these tensors."""
    latest: Beam | None = None
    for x in tensors:
        if x.beam is not None and x.beam is not latest and (latest is None or is_successor(x.beam, latest)):
            latest = x.beam
    return latest
