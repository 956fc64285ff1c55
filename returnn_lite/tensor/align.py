"""Broadcasting by Dim: the common layout of several tensors, and placing one tensor into a layout. Plans are cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor.axes import describe
from returnn_lite.tensor.dim import FEATURE, Dim, same_axis
from returnn_lite.tensor.lengths import Lengths
from returnn_lite.tensor.spec import AUTO, Spec
from returnn_lite.tensor.tensor import Beam, Tensor

ONE_MATCHES_UNTIL = 11  # behaviour version from which an axis of size 1 no longer matches any other


@lru_cache(maxsize=4096)
def match(source: Spec, target: Spec, behavior: int = 0) -> tuple[int | None, ...]:
    """For each axis of `source` the axis of `target` it corresponds to, or None.

    Tried in the order: equal Dim, equal static size, size 1 with any other (behaviour below 11), unknown length with
    any dynamic axis; of several candidates the first unused one, of those with the highest priority.
    """
    found: list[int | None] = [None] * source.rank
    used: set[int] = set()
    for rule in _RULES[: 2 if behavior >= ONE_MATCHES_UNTIL else 3] + _RULES[3:]:
        for i, dim in enumerate(source.dims):
            if found[i] is not None:
                continue
            candidates = [j for j, d in enumerate(target.dims) if j not in used and rule(dim, d)]
            same_role = [j for j in candidates if i == source.feature and j == target.feature]
            if candidates:
                found[i] = max(same_role or candidates, key=lambda j: target.dims[j].priority)
                used.add(found[i])  # type: ignore[arg-type]
    return tuple(found)


def _unknown(a: Dim, b: Dim) -> bool:
    return a.dynamic and b.dynamic and "undefined" in (a.name, b.name)


_RULES = [
    same_axis,
    lambda a, b: a.size is not None and a.size == b.size and not a.is_batch,
    lambda a, b: (a.size == 1 or b.size == 1) and not a.is_batch and not b.is_batch,
    _unknown,
]


@lru_cache(maxsize=4096)
def common(specs: tuple[Spec, ...], behavior: int = 0) -> Spec:
    """The layout that all of `specs` fit into: that of the first one with most axes, missing axes inserted.

    An axis of size 1 gives way to the other's size (behaviour below 11). dtype and sparse Dim are those of the chosen
    one.
    """
    loop = frozenset(d for s in specs for d in s.loop)
    bare = [s.one_tick() for s in specs]
    layout = bare[0]
    for spec in bare[1:]:
        layout = spec if spec.rank > layout.rank else layout
    result = layout
    for spec in bare:
        if spec is not layout:
            result = _joined(result, spec, behavior)
    missing = dict.fromkeys(d for s in specs for d in s.dims if d in loop and d not in result.dims)
    for dim in reversed(missing):
        result = result.with_loop(dim)
    return result


def _joined(layout: Spec, spec: Spec, behavior: int) -> Spec:
    """`layout` with the axes of `spec` that it lacks."""
    dims, time, feature = list(layout.dims), layout.time_dim, layout.feature
    positions = match(spec, layout, behavior)
    for i, at in enumerate(positions):
        if at is not None and dims[at].size == 1 and spec.dims[i].size != 1:
            dims[at] = spec.dims[i]
        elif at is not None and dims[at].name == "undefined" and dims[at].dynamic:
            dims[at] = spec.dims[i]
    if time is not None:
        time = dims[layout.time] if layout.time is not None else None
    for i, at in enumerate(positions):
        if at is None:
            place = _insertion(dims, feature, spec, i)
            if feature is not None and place <= feature:
                feature += 1
            elif feature is None and i == spec.feature and layout.sparse_dim is None:
                feature = place
            dims.insert(place, spec.dims[i])
    new_time = time if time is not None else AUTO
    return Spec(dims, layout.dtype, sparse_dim=layout.sparse_dim, time=new_time, feature=feature)


def _insertion(dims: Sequence[Dim], feature: int | None, spec: Spec, i: int) -> int:
    """Where a missing axis goes: batch first, feature after feature, dynamic after dynamic, else after spatial axes."""
    dim = spec.dims[i]
    if dim.is_batch:
        return 0
    if i == spec.feature or dim.kind == FEATURE:
        return len(dims) if feature is None else feature + 1
    dynamic = [j for j, d in enumerate(dims) if d.dynamic]
    if dim.dynamic and dynamic:
        return dynamic[-1] + 1
    spatial = [j for j, d in enumerate(dims) if not d.is_batch and j != feature]
    if spatial:
        return spatial[-1] + 1
    return len(dims) if feature is None else feature


@lru_cache(maxsize=4096)
def _placing(source: Spec, target: Spec, behavior: int) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """How to place `source` into `target`: the permutation, if any, then the positions of new axes of size 1."""
    positions = match(source, target, behavior)
    lost = [source.dims[i] for i, at in enumerate(positions) if at is None]
    if lost:
        raise ConfigError("", f"{describe(source)} does not fit into {describe(target)}: no place for {lost}")
    order = sorted(range(source.rank), key=lambda i: positions[i] or 0)
    stays = order == list(range(source.rank))
    return None if stays else tuple(order), tuple(j for j in range(target.rank) if j not in positions)


def place(x: Tensor, target: Spec, behavior: int = 0) -> torch.Tensor:
    """The data of `x` in the axis order of `target`; axes it lacks have size 1 (torch broadcasts them)."""
    if x.spec.dims == target.dims:
        return x.data
    order, new = _placing(x.spec, target, behavior)
    data = x.data if order is None else x.data.permute(order)
    for axis in new:
        data = data.unsqueeze(axis)
    return data


def expand(x: Tensor, target: Spec, sizes: Sequence[int], behavior: int = 0) -> torch.Tensor:
    """Like `place`, with the axes really repeated (as a view) to `sizes`."""
    return place(x, target, behavior).expand(tuple(sizes))


def sizes(spec: Spec, sources: Sequence[Tensor]) -> tuple[int, ...]:
    """The sizes that a tensor of `spec` has, made from `sources`."""
    found = []
    for i, dim in enumerate(spec.dims):
        if dim.size is not None:
            found.append(dim.size)
            continue
        found.append(_size_of(i, dim, spec, sources))
    return tuple(found)


def _size_of(i: int, dim: Dim, spec: Spec, sources: Sequence[Tensor]) -> int:
    for x in sources:
        for j, d in enumerate(x.spec.dims):
            if d == dim or (d.is_batch and dim.is_batch):
                return x.shape[j]
    for x in sources:
        if dim in x.lengths:
            return x.lengths[dim].max
    raise ConfigError("", f"the size of axis {i} of {describe(spec)} is not known from the sources")


def merged_lengths(sources: Sequence[Tensor]) -> Mapping[Dim, Lengths]:
    """The lengths that any of `sources` knows; the first one wins.

    Where some hold hypotheses, the lengths that others, without batch axis, know are those of the hypotheses.
    """
    return _merged_lengths(sources, first_beam(sources))


def first_beam(sources: Iterable[Tensor]) -> Beam | None:
    """The hypotheses that the first of `sources` holds which holds any."""
    for x in sources:
        if x.beam is not None:
            return x.beam
    return None


def _merged_lengths(sources: Sequence[Tensor], beam: Beam | None) -> Mapping[Dim, Lengths]:
    merged = _lengths_of(sources[0], beam)
    for x in sources[1:]:
        if x.lengths is not merged and not x.lengths.keys() <= merged.keys():
            merged = {**_lengths_of(x, beam), **merged}
    return merged


def _lengths_of(x: Tensor, beam: Beam | None) -> Mapping[Dim, Lengths]:
    if beam is None or x.beam is not None or x.spec.batch is not None:
        return x.lengths
    return {dim: n.tile(beam.size) for dim, n in x.lengths.items()}


def joined(data: torch.Tensor, spec: Spec, sources: Sequence[Tensor], **changes: object) -> Tensor:
    """A Tensor made from several sources: their lengths and their beam."""
    first, beam = sources[0], first_beam(sources)
    lengths = _merged_lengths(sources, beam)
    if lengths is not first.lengths or beam is not first.beam:
        first = Tensor(first.data, first.spec, lengths, beam)
    return first.with_data(data, spec, **changes)


def concat_features(sources: Sequence[Tensor], behavior: int = 0) -> Tensor:
    """The sources concatenated along the feature axis; other axes combined and really repeated.

    Shape: (B, T, F1), (B, F2) -> (B, T, F1 + F2). Raises ConfigError for sparse sources.
    """
    if len(sources) == 1:
        return sources[0]
    spec, layouts = concat_plan(tuple(x.spec for x in sources), behavior)
    parts = [place(x, layout, behavior) for x, layout in zip(sources, layouts, strict=True)]
    feature = spec.feature or 0
    others = [(*part.shape[:feature], *part.shape[feature + 1 :]) for part in parts]
    if any(shape != others[0] for shape in others[1:]):
        whole = sizes(layouts[0], sources)
        parts = [p.expand((*whole[:feature], p.shape[feature], *whole[feature + 1 :])) for p in parts]
    zeros = all(x.zero_padded and x.spec.dynamic_dims == spec.dynamic_dims for x in sources)
    return joined(torch.cat(parts, feature), spec, sources, zero_padded=zeros)


@lru_cache(maxsize=4096)
def concat_plan(specs: tuple[Spec, ...], behavior: int = 0) -> tuple[Spec, tuple[Spec, ...]]:
    """The Spec of a concatenation, and per source the same layout with its own feature axis."""
    for spec in specs:
        if spec.sparse or spec.feature is None:
            raise ConfigError("from", f"sources are concatenated only if all are dense, but one is {describe(spec)}")
        if spec.dtype != specs[0].dtype:
            raise ConfigError("from", f"sources must have one dtype, but have {sorted({s.dtype for s in specs})}")
    marker = Dim(-1, "concat", kind=FEATURE)
    layout = common(tuple(s.with_feature(marker) for s in specs), behavior)
    total = specs[0].dims[specs[0].feature or 0]
    for spec in specs[1:]:
        total = total + spec.dims[spec.feature or 0]
    layouts = tuple(layout.with_feature(s.dims[s.feature or 0]) for s in specs)
    return layout.with_feature(total), layouts
