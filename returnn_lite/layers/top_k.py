"""Searching along an axis: `top_k`, `search_sorted`."""

from __future__ import annotations

import math

import torch

from returnn_lite.layers.core.base import Layer, LayerRef
from returnn_lite.layers.core.registry import layer
from returnn_lite.tensor import AUTO, Dim, Lengths, Spec, Tensor
from returnn_lite.tensor.align import joined
from returnn_lite.tensor.axes import AxisText
from returnn_lite.tensor.axes import axes as find_axes
from returnn_lite.tensor.axes import axis as find_axis
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.masked import fill_padding, mask
from returnn_lite.tensor.spec import Role


@layer("top_k")
class TopK(Layer):
    """The `k` largest values along an axis.  Shape: (B, T, F), "F" -> (B, T, K), no feature axis

    `k`: a number, a Dim with a size, or a layer that gives a single number; `k_dim`: the new axis. Their positions are
    "<name>/indices" (int32, the axis as classes); with a list of axes "<name>/indices0" … Frames after the sequence
    ends are never included.
    """

    recurrent = True

    def __init__(
        self,
        *,
        axis: AxisText,
        k: LayerRef | int | Dim,
        k_dim: Dim | None = None,
        sorted: bool = True,  # noqa: A002 - the config word
    ) -> None:
        super().__init__()
        self.axis = axis
        size = k.size if isinstance(k, Dim) else k
        if size is None or (isinstance(size, int) and size < 1):
            raise self.error(f"`k` must be a positive number, a static Dim or a layer, but is {k!r} instead")
        self.k = size
        self.k_dim = k if isinstance(k, Dim) else k_dim
        self.sorted = sorted
        self.several = isinstance(axis, (list, tuple))

    def is_recurrent(self) -> bool:
        """Not along the features."""
        return not (isinstance(self.axis, str) and self.axis.lower() in ("f", "feature"))

    def spec(self, x: Spec | None, **refs: Spec | None) -> Spec | None:
        """All other axes, then K."""
        if x is None:
            return None
        size = self.k if isinstance(self.k, int) else None
        new = self.axis_dim(self.k_dim, self.dim("topk", size, SPATIAL))
        left = x.without(self._axes(x))
        time: Role = None if x.time is None else left.time
        return Spec((*left.dims, new), x.dtype, sparse_dim=x.sparse_dim, time=time, feature=None, loop=x.loop)

    def _axes(self, x: Spec) -> tuple[int, ...]:
        found = find_axes(x, self.axis) if self.several else (find_axis(x, self.axis),)
        sizes = [x.dims[i].size for i in found]
        known = [n for n in sizes if n is not None]
        if len(known) == len(sizes) and isinstance(self.k, int) and math.prod(known) < self.k:
            text = f"`k` must be at most {math.prod(known)}, the size of {self.axis!r}"
            raise self.error(f"{text}, but is {self.k} instead")
        return found

    def part_spec_from(self, part: str, output: Spec | None) -> Spec | None:
        """Positions are laid out as the values."""
        if output is None:
            return None
        names = [f"indices{i}" for i in range(len(self.axis))] if self.several else ["indices"]
        if part not in names:
            raise self.error(f"the parts are {', '.join(names)}, but {part!r} was requested")
        return Spec(output.dims, "int32", time=output.time, feature=None, loop=output.loop)

    def forward(self, x: Tensor, **refs: Tensor) -> Tensor:
        """The values, with their positions as parts."""
        found, spec = self._axes(x.spec), self.made_spec(x.spec, **{option: ref.spec for option, ref in refs.items()})
        k = self.k if isinstance(self.k, int) else int(refs["k"].data)
        if spec.dims[-1].dynamic:
            x = x.with_lengths({spec.dims[-1]: Lengths(torch.tensor(k, device=x.device), k, ())})
        lowest = float("-inf") if x.data.dtype.is_floating_point else torch.iinfo(x.data.dtype).min
        data = fill_padding(x, lowest, [i for i in found if x.spec.dims[i].dynamic])
        data = data.permute((*(i for i in range(x.spec.rank) if i not in found), *found))
        sizes = data.shape[data.dim() - len(found) :]
        values, index = data.flatten(data.dim() - len(found)).topk(k, -1, sorted=self.sorted)
        out = x.with_data(values, spec)
        out.parts = {}
        for i in reversed(range(len(found))):
            dim = x.spec.dims[found[i]]
            layout = Spec(spec.dims, "int32", sparse_dim=dim, time=spec.time, feature=None, loop=spec.loop)
            name = f"indices{i}" if self.several else "indices"
            out.parts[name] = x.with_data((index % sizes[i]).to(torch.int32), layout)
            index = index // sizes[i]
        return out


@layer("search_sorted")
class SearchSorted(Layer):
    """The positions of `values` in a sorted sequence.  Shape: sequence (B, T), values (B, N) -> (B, N) int32

    `side` "left": the first such position, "right": the last. The values have all axes of the sequence but `axis`.
    """

    full_precision = True
    sources = "none"
    recurrent = True

    def __init__(
        self, *, sorted_sequence: LayerRef, values: LayerRef, axis: AxisText = "T", side: str = "left"
    ) -> None:
        super().__init__()
        self.sorted_sequence = sorted_sequence
        self.values = values
        self.axis = axis
        self.side = side
        if side not in ("left", "right"):
            raise self.error(f'`side` must be "left" or "right", but is {side!r} instead')

    def spec(self, *sources: Spec | None, **refs: Spec | None) -> Spec | None:
        """The values' axes."""
        values, sequence = refs["values"], refs["sorted_sequence"]
        if values is None or sequence is None:
            return None
        self._places(values, sequence)
        feature: Role = AUTO if values.sparse else values.feature
        return Spec(values.dims, "int32", time=values.time, feature=feature, loop=values.loop)

    def _places(self, values: Spec, sequence: Spec) -> tuple[list[int], list[int], int]:
        """The common axes in the sequence and in the values, and the sorted axis."""
        at = find_axis(sequence, self.axis)
        mine = [i for i in range(sequence.rank) if i != at]
        theirs = []
        for i in mine:
            dim = sequence.dims[i]
            same = [j for j, d in enumerate(values.dims) if d == dim or (d.is_batch and dim.is_batch)]
            if not same:
                raise self.error(f"`values` must have the axis {dim} of the sequence, but has only {values}")
            theirs.append(same[0])
        return mine, theirs, at

    def forward(self, *sources: Tensor, **refs: Tensor) -> Tensor:
        """The positions."""
        values, sequence = refs["values"], refs["sorted_sequence"]
        mine, theirs, at = self._places(values.spec, sequence.spec)
        info = torch.finfo if sequence.data.dtype.is_floating_point else torch.iinfo
        ordered = fill_padding(sequence, info(sequence.data.dtype).max, [at]).permute((*mine, at))
        rest = [j for j in range(values.spec.rank) if j not in theirs]
        wanted = values.data.permute((*theirs, *rest))
        shape = wanted.shape
        flat = wanted.reshape((*shape[: len(theirs)], -1)).contiguous()
        found = torch.searchsorted(ordered.contiguous(), flat, right=self.side == "right")
        valid = mask(sequence, at)
        if valid is not None:  # never after the sequence end
            ends = valid.expand(sequence.data.shape).permute((*mine, at)).sum(-1, keepdim=True)
            found = torch.minimum(found, ends)
        placed = found.reshape(shape).permute([(*theirs, *rest).index(j) for j in range(values.spec.rank)])
        spec = self.made_spec(values=values.spec, sorted_sequence=sequence.spec)
        return joined(placed.to(torch.int32), spec, [values, sequence])
