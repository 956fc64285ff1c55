"""`size_target`: a data key that gives the lengths of axes about which `out_type` says nothing but "dynamic"."""

from __future__ import annotations

import torch

from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.base import Layer
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor


def _is_undefined(dim: Dim) -> bool:
    return dim.dynamic and dim.name == "undefined"


def _key(layer: Layer) -> str | None:
    """The data key, where losses are evaluated; None where `size_target` does not count."""
    key = layer.options.size_target
    return key if key and layer.context.losses else None


def with_target_axes(layer: Layer, spec: Spec) -> Spec:
    """`spec` with the dynamic axes of the data key in place of undefined ones, in order."""
    key = _key(layer)
    undefined = [i for i, d in enumerate(spec.dims) if _is_undefined(d)]
    if key is None or not undefined:
        return spec
    if layer.context.data_keys is None:
        raise layer.error("the data keys are not known")
    target = layer.context.data_keys.spec(key)
    given = dict(zip(undefined, (d for d in target.dims if d.dynamic), strict=False))
    dims = [given.get(i, d) for i, d in enumerate(spec.dims)]
    return Spec(dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature, loop=spec.loop)


def with_target_lengths(
    layer: Layer, spec: Spec, data: torch.Tensor, sources: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The sources, the first one knowing the lengths of the data key; axes that stay undefined are full everywhere."""
    key = _key(layer)
    if key is None and not spec.memo("undefined", lambda: any(map(_is_undefined, spec.dims))):
        return sources
    more: dict[Dim, Lengths] = {}
    if key is not None:
        given = layer.context.run.data.get(key)
        if given is None:
            raise ConfigError(layer.path, f"`size_target` must be a data key of the batch, but {key!r} is missing")
        more = {d: given.length(d) for d in given.spec.dims if d.dynamic}
    for i, dim in enumerate(spec.dims):
        if _is_undefined(dim) and spec.batch is not None:
            size = data.shape[i]
            full = torch.full((data.shape[spec.batch],), size, dtype=torch.int32, device=data.device)
            more[dim] = Lengths(full, size)
    return (sources[0].with_lengths(more), *sources[1:]) if more else sources
