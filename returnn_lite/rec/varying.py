"""Tensors made for a whole loop whose lengths differ from tick to tick (all frames so far): what each tick sees."""

from __future__ import annotations

from returnn_lite.tensor import Dim, Lengths, Tensor


def varies(x: Tensor, dim: Dim) -> bool:
    """Whether an axis of the tensor has other lengths at each frame of the loop axis `dim`."""
    return any(dim in x.lengths[d].dims for d in x.spec.dims if d in x.lengths)


def frames(x: Tensor, dim: Dim) -> list[Tensor]:
    """The tensor at each tick, as long as its longest sequence there. Asks the device once."""
    whole = {d: n for d, n in x.lengths.items() if dim in n.dims}
    most = {d: n.values.movedim(n.dims.index(dim), 0).flatten(1).amax(1) for d, n in whole.items() if n.dims != (dim,)}
    most |= {d: n.values for d, n in whole.items() if n.dims == (dim,)}
    sizes = {d: values.tolist() for d, values in most.items()}
    ticks = min(len(ends) for ends in sizes.values())
    return [_frame(x, dim, tick, {d: ends[tick] for d, ends in sizes.items()}) for tick in range(ticks)]


def first_frame(x: Tensor, dim: Dim) -> Tensor:
    """The tensor at the first tick of the loop over `dim`; 0 if there is none."""
    if dim not in x.spec.dims:
        return x
    at = x.spec.dims.index(dim)
    data = x.data if x.data.shape[at] else x.data.new_zeros([max(n, 1) for n in x.data.shape])
    lengths = {d: n for d, n in x.lengths.items() if d != dim}
    return Tensor(data.select(at, 0), x.spec.in_loop(dim), lengths, x.beam)


def _frame(x: Tensor, dim: Dim, tick: int, sizes: dict[Dim, int]) -> Tensor:
    data, spec = x.data, x.spec
    if dim in spec.dims:
        data, spec = data.select(spec.dims.index(dim), tick), spec.in_loop(dim)
    lengths = {d: n for d, n in x.lengths.items() if d != dim}
    for d, size in sizes.items():
        old = x.lengths[d]
        values = old.values.select(old.dims.index(dim), tick)
        lengths[d] = Lengths(values, size, tuple(axis for axis in old.dims if axis != dim))
        if d in spec.dims:
            data = data.narrow(spec.dims.index(d), 0, size)
    return Tensor(data, spec, lengths, x.beam)
