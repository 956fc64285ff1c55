"""`TensorDict`: tensors by key."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any

import numpy as np
import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import UnknownName, did_you_mean, user_line
from returnn_lite.frontend import sizes_clock
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.frontend.types import RawTensor


class TensorDict:
    """Tensors by key, `data`. Tensors are stored as copies that share the data."""

    def __init__(self, data: Any = None) -> None:
        self.data: dict[str, Tensor] = {}
        if data is not None:
            self.update(data)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data})"

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.data:
            hint = did_you_mean(str(key), list(self.data))
            raise WrongUse(f"unknown tensor {key!r}{hint}; known: {sorted(self.data)}")
        return self.data[key]

    def __getattr__(self, name: str) -> Any:  # Any: it never gives anything
        if name.startswith("_") or name == "data":
            raise AttributeError(name)
        hint = f"; its tensor is [{name!r}]" if name in self.data else did_you_mean(name, dir(self))
        raise UnknownName(user_line(), f"a TensorDict has no attribute {name!r}{hint}")

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def keys(self) -> KeysView[str]:
        """The keys."""
        return self.data.keys()

    def values(self) -> ValuesView[Tensor]:
        """The tensors."""
        return self.data.values()

    def items(self) -> ItemsView[str, Tensor]:
        """Keys and tensors."""
        return self.data.items()

    def get(self, key: str, default: Any = None) -> Any:  # Any: as of a dict, whose default may be anything
        """The tensor of a key, or the default."""
        return self.data.get(key, default)

    def update(self, data: ConfigValue, auto_convert: bool = False) -> None:
        """Puts tensors in: a dict, another TensorDict, or a list (then by their names).

        auto_convert: the values may be dicts of the options of `Tensor`.
        """
        if isinstance(data, TensorDict | Mapping):
            pairs = list(data.items())
        elif isinstance(data, list | tuple):
            pairs = [(tensor.name, tensor) for tensor in data]
        else:
            raise WrongUse(f"a TensorDict is made of a dict or list of tensors, but got {data!r} instead")
        for key, value in pairs:
            self.data[key] = (
                declared(key, value) if auto_convert and isinstance(value, Mapping) else _copied(key, value)
            )

    def copy_template(self) -> TensorDict:
        """The same keys without data."""
        found = TensorDict()
        found.data = {key: value.copy_template() for key, value in self.data.items()}
        return found

    def reset_content(self) -> None:
        """Forgets all data, and the sizes of all axes."""
        for value in self.data.values():
            value.reset()
            for dim in value.dims:
                reset_sizes(dim)

    def all_dims(self) -> list[Dim]:
        """All axes, each once."""
        found: list[Dim] = []
        for value in self.data.values():
            found += [dim for dim in value.dims if dim not in found]
        return found

    def as_raw_tensor_dict(
        self,
        *,
        include_const_sizes: bool = False,
        include_scalar_dyn_sizes: bool = True,
        exclude_duplicate_dims: bool = False,
    ) -> dict[str, RawTensor]:
        """The raw data by key, and sizes as `key:size<axis>`."""
        found: dict[str, Any] = {}
        seen: list[Dim] = []
        for key, value in self.data.items():
            found[key] = value.raw_tensor
            for i, dim in enumerate(value.dims):
                if exclude_duplicate_dims and dim in seen:
                    continue
                seen.append(dim)
                sizes = dim.dyn_size_ext
                if dim.is_static():
                    if include_const_sizes:
                        found[f"{key}:size{i}"] = dim.dimension
                elif sizes is not None and (sizes.dims or include_scalar_dyn_sizes):
                    found[f"{key}:size{i}"] = sizes.raw_tensor
        return found

    def assign_from_raw_tensor_dict_(self, raw: Mapping[str, RawTensor], **_unused: object) -> None:
        """The inverse of `as_raw_tensor_dict`: sets data, and the sizes in the axes."""
        for key, value in self.data.items():
            for i, dim in enumerate(value.dims):
                size = raw.get(f"{key}:size{i}")
                if size is not None and dim.is_dynamic():
                    set_sizes(dim, size)
        for key, value in self.data.items():
            if key in raw:
                value.raw_tensor = raw[key]


def _copied(key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise WrongUse(f"tensor {key!r} must be a Tensor, but is {value!r} instead")
    return value.copy() if value.raw_tensor is not None else _template(value)


def _template(value: Any) -> Tensor:
    found: Tensor = value.copy_template()
    found.available_for_inference = value.available_for_inference
    return found


def declared(key: str, options: Mapping[str, ConfigValue]) -> Tensor:
    """A tensor without data from options as in `extern_data`."""
    given = dict(options)
    name = given.pop("name", key)
    dims: Sequence[Dim] | None = given.pop("dims", None)
    return Tensor(name, dims, **given)


def set_sizes(dim: Dim, raw: RawTensor) -> None:
    """New sizes for an axis; one per batch entry if there is more than one."""
    sizes = dim.dyn_size_ext
    if sizes is None:
        dim.dyn_size_ext = raw if hasattr(raw, "ndim") else _scalar(raw)
        return
    found = Tensor._new(raw, sizes.dims, name=sizes.name)
    dim.extent().given = found


def _scalar(raw: Any) -> Tensor:
    return Tensor("size", (), "int32", raw_tensor=raw)


def reset_sizes(dim: Dim) -> None:
    """Forgets the sizes of an axis; what axes they have stays known."""
    sizes = dim.extent().given
    dim.reset_eager()
    if sizes is not None:
        dim.extent().given = sizes.copy_template()


def tensor_dict_numpy_to_torch_(tensor_dict: TensorDict) -> None:
    """Makes torch tensors of all numpy arrays but texts, and of sizes, in place."""
    _convert(tensor_dict, lambda raw: torch.as_tensor(raw) if _is_numeric(raw) else raw)


def tensor_dict_torch_to_numpy_(tensor_dict: TensorDict) -> None:
    """Makes numpy arrays of all torch tensors, and of sizes, in place."""
    _convert(tensor_dict, lambda raw: raw.detach().cpu().numpy() if isinstance(raw, torch.Tensor) else raw)


def _is_numeric(raw: Any) -> bool:
    return isinstance(raw, np.ndarray | np.generic) and np.asarray(raw).dtype.kind not in "UOS"


def _convert(tensor_dict: TensorDict, convert: Any) -> None:
    for value in tensor_dict.data.values():
        value._raw = convert(value._raw)
    for dim in tensor_dict.all_dims():
        sizes = dim.extent().given
        if sizes is not None:
            sizes._raw = convert(sizes._raw)
    sizes_clock.tick()
