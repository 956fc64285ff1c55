"""Datasets whose keys are described by the options of tensors, as in `extern_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.errors import ConfigError


class TypedKeys(Dataset):
    """A dataset with tensor options per key: `types`."""

    types: dict[str, dict[str, Any]]

    def set_types(self, value: ConfigValue, path: str) -> None:
        """Sets `types` and `num_outputs`; raises ConfigError for anything but a dict of options."""
        if not isinstance(value, Mapping) or not value or not all(isinstance(v, Mapping) for v in value.values()):
            raise ConfigError(path, f"must be a dict from key to the options of a tensor, but is {value!r} instead")
        self.types = {key: dict(options) for key, options in value.items()}
        self.num_outputs = {key: dims_of_options(options) for key, options in self.types.items()}

    def get_data_dtype(self, key: str) -> str:
        """By the options."""
        self._dim_ndim(key)
        return str(self.types[key].get("dtype") or ("int32" if is_sparse(self.types[key]) else "float32"))

    def is_data_sparse(self, key: str) -> bool:
        """By the options."""
        self._dim_ndim(key)
        return is_sparse(self.types[key])

    def get_data_shape(self, key: str) -> list[int | None]:
        """By the options, without time."""
        self._dim_ndim(key)
        shape = shape_of_options(self.types[key])
        return list(shape[1:]) if shape and shape[0] is None else list(shape)

    def has_time(self, key: str) -> bool:
        """Whether the first axis has no fixed size."""
        self._dim_ndim(key)
        shape = shape_of_options(self.types[key])
        return bool(shape) and shape[0] is None


def is_sparse(options: ConfigDict) -> bool:
    """Whether a tensor's options describe class indices."""
    return bool(options.get("sparse", options.get("sparse_dim") is not None))


def shape_of_options(options: ConfigDict) -> tuple[int | None, ...]:
    """Shape without batch that a tensor's options describe; time is None."""
    if options.get("dims") is not None:
        return tuple(size_of(dim) for dim in options["dims"])
    if options.get("shape") is not None:
        return tuple(options["shape"])
    return (None,) if is_sparse(options) else (None, options.get("dim"))


def size_of(dim: ConfigValue) -> int | None:
    """Size of an axis given as number or as an object; None if it is not fixed."""
    return dim if dim is None or isinstance(dim, int) else getattr(dim, "size", None) or getattr(dim, "dimension", None)


def dims_of_options(options: ConfigDict) -> tuple[int, int]:
    """(dim, number of axes with time) that a tensor's options describe."""
    shape = shape_of_options(options)
    dim = options.get("dim", size_of(options.get("sparse_dim")))
    if dim is None:
        dim = shape[-1] if shape else None
    return int(dim or 0), len(shape)
