"""Specs from the words of a config: entries of `extern_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor.axes import axis
from returnn_lite.tensor.dim import FEATURE, SPATIAL, Dim, batch_dim
from returnn_lite.tensor.foreign import with_core_dims
from returnn_lite.tensor.spec import AUTO, Spec

_OPTIONS = {
    *("dim", "shape", "sparse", "dtype", "batch_dim_axis", "time_dim_axis", "feature_dim_axis", "dim_tags", "dims"),
    *("sparse_dim", "feature_dim", "same_dim_tags_as", "available_for_inference", "vocab", "name"),
}


def data_spec(key: str, options: ConfigDict) -> Spec:
    """The Spec of one extern_data entry.

    Raises ConfigError with the path `extern_data["key"]` for unknown options and contradictions.
    """
    path = f"extern_data[{key!r}]"
    options = with_core_dims(options)
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(path, f"unknown option {name!r}{did_you_mean(str(name), sorted(_OPTIONS))}")
    tags = next((options[name] for name in ("dim_tags", "dims") if options.get(name) is not None), None)
    sparse_dim = _sparse_dim(key, options, path)
    dtype = options.get("dtype") or ("int32" if sparse_dim is not None else "float32")
    dims = tuple(tags) if tags is not None else _dims(key, options, sparse_dim is not None, path)
    roles: dict[str, Any] = {"time": AUTO, "feature": AUTO}
    for role, option in (("time", "time_dim_axis"), ("feature", "feature_dim_axis")):
        if option in options:
            roles[role] = options[option]
    if "feature_dim" in options and sparse_dim is None:
        roles["feature"] = options["feature_dim"]
    if sparse_dim is not None:
        roles["feature"] = None
    if "time_dim_axis" not in options and not any(d.dynamic for d in dims):
        roles["time"] = None
    spec = Spec(dims, dtype, sparse_dim=sparse_dim, **roles)
    return _with_tags(spec, options.get("same_dim_tags_as") or {})


def _with_tags(spec: Spec, tags: Mapping[Any, Dim]) -> Spec:
    """Axes that the user declares to be given Dims."""
    for text, dim in tags.items():
        at = axis(spec, text, option="same_dim_tags_as")
        dims = tuple(dim if i == at else d for i, d in enumerate(spec.dims))
        spec = Spec(dims, spec.dtype, sparse_dim=spec.sparse_dim, time=spec.time, feature=spec.feature)
    return spec


def _sparse_dim(key: str, options: Mapping[str, Any], path: str) -> Dim | None:
    if isinstance(options.get("sparse_dim"), Dim):
        return options["sparse_dim"]  # type: ignore[no-any-return]
    if not options.get("sparse"):
        return None
    dim = options.get("dim")
    if isinstance(dim, Dim):
        return dim
    if dim is not None and not isinstance(dim, int):
        raise ConfigError(path, f"`dim` must be an int, but is {dim!r} instead")
    return Dim(dim, f"{key}:sparse-dim", kind=FEATURE)


def _dims(key: str, options: Mapping[str, Any], sparse: bool, path: str) -> tuple[Dim, ...]:
    """The axes by `shape` (or its default), with the batch axis put in."""
    shape = _shape(options, sparse, path)
    batch = options.get("batch_dim_axis", 0)
    whole: list[Any] = list(shape)
    if batch is not None:
        whole.insert(batch, batch_dim)
    time = options.get("time_dim_axis", AUTO)
    if time is AUTO:
        time = next((i for i, n in enumerate(whole) if n is None), None)
    feature = None if sparse else _feature_axis(whole, time, options)
    return tuple(_dim(key, i, n, time, feature) for i, n in enumerate(whole))


def _shape(options: Mapping[str, Any], sparse: bool, path: str) -> tuple[Any, ...]:
    dim = options.get("dim")
    if options.get("shape") is not None:
        shape = options["shape"]
        if not isinstance(shape, (tuple, list)):
            raise ConfigError(path, f"`shape` must be a tuple without the batch axis, but is {shape!r} instead")
        if not sparse and dim is not None and shape and shape[-1] != dim and "feature_dim_axis" not in options:
            raise ConfigError(path, f"`dim` must be the last entry of `shape` {tuple(shape)}, but is {dim} instead")
        return tuple(shape)
    if options.get("time_dim_axis", AUTO) is None:
        return () if sparse else (dim,)
    return (None,) if sparse else _frames_and_features(dim, options)


def _frames_and_features(dim: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """One axis of each, the features last unless `feature_dim_axis` says otherwise."""
    batch, feature = options.get("batch_dim_axis", 0), options.get("feature_dim_axis")
    places = [i for i in range(2 if batch is None else 3) if i != batch]
    return (dim, None) if feature == places[0] else (None, dim)


def _feature_axis(whole: list[Any], time: int | None, options: Mapping[str, Any]) -> int | None:
    if "feature_dim_axis" in options:
        return options["feature_dim_axis"]  # type: ignore[no-any-return]
    free = [i for i, n in enumerate(whole) if n is not batch_dim and i != time]
    static = [i for i in free if isinstance(whole[i], int)]
    return static[-1] if static else free[-1] if free else None


def _dim(key: str, i: int, size: Any, time: int | None, feature: int | None) -> Dim:
    if isinstance(size, Dim):
        return size
    if i == feature:
        return Dim(size, f"feature:{key}", kind=FEATURE)
    if size is not None:
        return Dim(size, f"spatial{i}:static{size}:{key}", kind=SPATIAL)
    role = "time" if i == time else f"spatial{i}"
    return Dim(None, f"{role}:var:extern_data:{key}", kind=SPATIAL)
