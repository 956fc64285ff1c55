"""`out_type`: overrides of an element-wise layer's output by the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor import AUTO, Dim, Spec, batch_dim
from returnn_lite.tensor.dim import FEATURE
from returnn_lite.tensor.spec import Role

_OPTIONS = (
    *("dim", "shape", "sparse", "dtype", "batch_dim_axis", "time_dim_axis", "feature_dim_axis", "dim_tags", "dims"),
    *("sparse_dim", "name", "beam"),
)


def overridden(spec: Spec, out_type: ConfigDict | None, sources: Sequence[Spec], layer: str) -> Spec:
    """`spec` with the overrides of `out_type`.

    `shape` (without batch): None takes the next unused dynamic axis of the sources, a number a static axis of that
    size, a Dim is itself. Without sources there is a batch axis only where `batch_dim_axis` says so. Raises ConfigError
    for unknown entries and contradictions.
    """
    if not out_type:
        return spec
    for key in out_type:
        if key not in _OPTIONS:
            raise ConfigError("out_type", f"unknown entry {key!r}{did_you_mean(str(key), _OPTIONS)}")
    sparse_dim = _sparse_dim(spec, out_type, layer) if out_type.get("dtype") != "string" else None
    dtype = out_type.get("dtype") or ("int32" if sparse_dim is not None and not spec.sparse else spec.dtype)
    tags = out_type.get("dim_tags") or out_type.get("dims")
    shape = out_type.get("shape")
    if tags is None and shape is None:
        return _same_axes(spec, out_type, dtype, sparse_dim)
    if spec.loop:
        return _beside_loops(spec, out_type, sources, layer)
    if isinstance(shape, int):
        raise ConfigError("out_type", f"`shape` must be a tuple (write `({shape},)`), but is {shape} instead")
    dims = tuple(tags) if tags else _dims(shape or (), out_type, sources, layer)
    roles: dict[str, Any] = {
        "time": out_type.get("time_dim_axis", AUTO),
        "feature": out_type.get("feature_dim_axis", AUTO),
    }
    return Spec(dims, dtype, sparse_dim=sparse_dim, **({**roles, "feature": None} if sparse_dim is not None else roles))


def _beside_loops(spec: Spec, out_type: ConfigDict, sources: Sequence[Spec], layer: str) -> Spec:
    """The axes of a layer moved out of a loop: what `out_type` says of one tick, behind the axes of the loops."""
    bare = overridden(spec.one_tick(), out_type, [source.one_tick() for source in sources], layer)
    for dim in reversed([d for d in spec.dims if d in spec.loop]):
        bare = bare.with_loop(dim)
    return bare


def _same_axes(spec: Spec, out_type: Mapping[str, Any], dtype: str, sparse_dim: Dim | None) -> Spec:
    """The axes stay; dtype, classes and roles may change."""
    dim = out_type.get("dim")
    if dim is not None and sparse_dim is None and spec.dim is not None and spec.dim != dim:
        text = (
            f"`dim` must be {spec.dim}, the size of the feature axis, but is {dim} instead; to change it give `shape`"
        )
        raise ConfigError("out_type", text)
    feature: Role = None if sparse_dim is not None else AUTO if spec.sparse else spec.feature
    if "feature_dim_axis" in out_type and sparse_dim is None:
        feature = out_type["feature_dim_axis"]
    time: Role = out_type.get("time_dim_axis", spec.time)
    return Spec(spec.dims, dtype, sparse_dim=sparse_dim, time=time, feature=feature, loop=spec.loop)


def _sparse_dim(spec: Spec, out_type: Mapping[str, Any], layer: str) -> Dim | None:
    if isinstance(out_type.get("sparse_dim"), Dim):
        return out_type["sparse_dim"]  # type: ignore[no-any-return]
    if not out_type.get("sparse", spec.sparse):
        return None
    if "dim" in out_type and (spec.sparse_dim is None or spec.sparse_dim.size != out_type["dim"]):
        return Dim(out_type["dim"], f"{layer}:sparse-dim", kind=FEATURE)
    return spec.sparse_dim


def _dims(shape: Sequence[Any], out_type: Mapping[str, Any], sources: Sequence[Spec], layer: str) -> tuple[Dim, ...]:
    """The axes for `shape`, with the batch axis put in."""
    known = [d for s in sources for d in s.dims if not d.is_batch]
    dynamic = list(dict.fromkeys(d for d in known if d.dynamic))
    static = list(dict.fromkeys(d for d in known if not d.dynamic))
    dims: list[Dim] = []
    for i, size in enumerate(shape):
        if isinstance(size, Dim):
            dims.append(size)
            continue
        if size is None:
            dims.append(dynamic.pop(0) if dynamic else Dim(None, "undefined"))
            continue
        fitting = next((d for d in static if d.size == size), None)
        if fitting is not None:
            static.remove(fitting)
        dims.append(fitting or Dim(size, f"{layer}:static:{i}", kind=FEATURE))
    batch = out_type.get("batch_dim_axis", 0 if sources else None)
    if batch is not None and (not sources or any(d.is_batch for s in sources for d in s.dims)):
        dims.insert(batch, batch_dim)
    return tuple(dims)
