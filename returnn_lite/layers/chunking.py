"""Overlapping chunks of each sequence as sequences of their own, and back: `time_chunking`, `time_unchunking`."""

from __future__ import annotations

import torch

from returnn_lite.config.option_types import PositiveInt
from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.ops.resampling import pad
from returnn_lite.ops.windows import overlap_add, sliding
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.axes import AxisText, describe
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import BATCH, SPATIAL

_CHUNKED = "chunked"


@layer("time_chunking")
class TimeChunking(Layer):
    """Chunks of `chunk_size` frames, one every `chunk_step`, as a batch.  Shape: (B, T, F) -> (chunk_size, B * n, F)

    n = max(T - size + step - 1, 0) // step + 1 from the padded T; row b * n + c holds the frames from c * step on. The
    lengths are the valid frames of each chunk (0 for chunks after the sequence end).
    """

    recurrent = True

    def __init__(self, *, chunk_size: PositiveInt, chunk_step: PositiveInt, axis: AxisText = "T") -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.chunk_step = chunk_step
        self.axis = axis
        if chunk_size < 1 or chunk_step < 1:
            raise self.error(f"`chunk_size` and `chunk_step` must be positive, but are {chunk_size} and {chunk_step}")

    def _order(self, x: Spec) -> tuple[int, ...]:
        at = find_axis(x, self.axis)
        if x.batch is None:
            raise self.error(f"the source needs a batch axis, but is {describe(x)}")
        return x.order(at, x.batch)

    def spec(self, x: Spec | None) -> Spec | None:
        """(chunk, batch of chunks, the others)."""
        if x is None:
            return None
        x = x.permuted(self._order(x))
        at = len(x.loop)
        chunk = self.axis_dim(self.options.out_dim, self.dim("chunking", None, SPATIAL))
        derived = (_CHUNKED, (x.dims[at], self.chunk_size, self.chunk_step))
        batch = Dim(None, "chunked", kind=BATCH, derived=derived)
        dims = (*x.dims[:at], chunk, batch, *x.dims[at + 2 :])
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=at, feature=x.feature, loop=x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The chunks."""
        x = sources[0].permuted(self._order(sources[0].spec))
        spec, at = self.made_spec(sources[0].spec), len(x.spec.loop)
        frames, batch = x.data.shape[at : at + 2]
        count = max(frames - self.chunk_size + self.chunk_step - 1, 0) // self.chunk_step + 1
        missing = (count - 1) * self.chunk_step + self.chunk_size - frames
        margins = (0, max(missing, 0))
        chunks = sliding(x.data, at, self.chunk_size, self.chunk_step, margins)  # (…, n, B, …, size)
        chunks = chunks.movedim((-1, at + 1, at), (at, at + 1, at + 2)).flatten(at + 1, at + 2)
        dim = x.spec.dims[at]
        lengths = x.length(dim).values if dim.dynamic else torch.full((batch,), frames, device=x.device)
        starts = torch.arange(count, device=x.device, dtype=lengths.dtype) * self.chunk_step
        inside = (lengths.unsqueeze(1) - starts).clamp(0, self.chunk_size).reshape(-1).to(torch.int32)
        kept = {d: n.repeated(1, count) for d, n in x.lengths.items() if d in x.spec.dims and d != dim}
        out = x.with_lengths({**kept, spec.dims[at]: Lengths(inside, self.chunk_size)})
        return out.with_data(chunks, spec)


@layer("time_unchunking")
class TimeUnchunking(Layer):
    """Undoes `time_chunking`; frames in several chunks are averaged.  Shape: (chunk_size, B * n, F) -> (T, B, F)"""

    recurrent = True

    def __init__(self, *, chunking_layer: LayerRef) -> None:
        super().__init__()
        self.chunking_layer = chunking_layer

    def _made_of(self, x: Spec, chunks: Spec) -> tuple[Dim, int, int]:
        """The time axis, the size and the step of the chunks."""
        dim = None if chunks.batch is None else chunks.dims[chunks.batch]
        if dim is None or dim.op != _CHUNKED or x.batch is None or x.time is None:
            raise self.error(f"`chunking_layer` must be a `time_chunking` layer, and its frames the source; it is {x}")
        base, size, step = dim.parts
        if not isinstance(base, Dim) or not isinstance(size, int) or not isinstance(step, int):
            raise self.error(f"the chunks come from {dim.parts}")
        return base, size, step

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """Time, batch, the others."""
        x, chunks = sources[0], refs["chunking_layer"]
        if x is None or chunks is None:
            return None
        base, _, _ = self._made_of(x, chunks)
        x = x.permuted(x.order(x.time or 0, x.batch or 0))
        at = len(x.loop)
        dims = (*x.dims[:at], base, batch_dim, *x.dims[at + 2 :])
        return Spec(dims, x.dtype, sparse_dim=x.sparse_dim, time=at, feature=x.feature, loop=x.loop)

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The averages."""
        x, chunks = sources[0], refs["chunking_layer"]
        base, size, step = self._made_of(x.spec, chunks.spec)
        spec = self.made_spec(x.spec, chunking_layer=chunks.spec)
        x = x.permuted(x.spec.order(x.spec.time or 0, x.spec.batch or 0))
        at = len(x.spec.loop)
        frames = chunks.length(base).max if base.dynamic else base.size or 0
        count = max(frames - size + step - 1, 0) // step + 1
        data = x.data.unflatten(at + 1, (-1, count)).movedim(at + 2, at)  # (…, n, size, B, …)
        sums = overlap_add(data, at, step)
        times = overlap_add(data.new_ones(count, size), 0, step)
        mean = sums / times.reshape((-1, *(1,) * (sums.dim() - 1 - at)))
        if mean.shape[at] < frames:
            mean = pad(mean, at, 0, frames - mean.shape[at])
        lengths = {d: n.every(count) for d, n in x.lengths.items() if d in spec.dims}
        if base.dynamic:
            lengths[base] = chunks.length(base)
        return x.with_lengths(lengths).with_data(mean.narrow(at, 0, frames), spec)
