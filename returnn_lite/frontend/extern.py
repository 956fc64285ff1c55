"""The data of a batch as functions of a config see it: tensors without data from their descriptions, and filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.dim import batch_dim
from returnn_lite.frontend.tensor import Sizes, Tensor
from returnn_lite.frontend.tensor_dict import TensorDict
from returnn_lite.frontend.tensor_dict import declared as declared_tensor
from returnn_lite.tensor import Tensor as CoreTensor
from returnn_lite.tensor import batch_dim as core_batch_dim


def declared(options: Mapping[str, ConfigValue], path: str) -> TensorDict:
    """Tensors without data from options as in `extern_data` (dim, shape, dims, sparse_dim, …); or `Tensor`s."""
    found = TensorDict()
    if not isinstance(options, Mapping | TensorDict):
        raise ConfigError(path, f"must be a dict of tensors, but is {options!r} instead")
    for key, value in options.items():
        where = f'{path}["{key}"]'
        if isinstance(value, Tensor):
            found.update({key: value})
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(where, f"must be a dict of options, but is {value!r} instead")
        found.data[key] = _one(key, value, where)
    return found


def _one(key: str, options: Mapping[str, Any], where: str) -> Tensor:
    own = {name: value for name, value in options.items() if name != "same_dim_tags_as"}
    try:
        found = declared_tensor(key, own)
        for axis, dim in (options.get("same_dim_tags_as") or {}).items():
            found.replace_dim(found.get_axis_from_description(axis, allow_int=True), dim)
    except ConfigError as error:
        raise ConfigError(where, error.message) from None
    if "dims" not in options and "dim_tags" not in options:
        for dim in found.dims:
            if dim.dynamic and dim.dyn_size_ext is None:
                dim.extent().given = Sizes(dim.name, (batch_dim,), "int32")
    return found


class ExternTensors:
    """The tensors of `extern_data`: `templates` by key; `fill` gives those of a batch, floats as `float_dtype`."""

    def __init__(self, options: Mapping[str, Any], float_dtype: torch.dtype | None = None) -> None:
        self.float_dtype = float_dtype
        self.templates = declared({k: v for k, v in options.items() if k != "seq_tag"}, "extern_data")
        first = next(iter(self.templates.data.values()), None)
        self.batch = first.dims[0] if first is not None and first.dims else batch_dim
        if not self.batch.is_batch_dim() and self.batch.is_dynamic():
            self.batch.extent().owner._core = core_batch_dim  # the engine's data has its batch axis there
        self._dims = [dim for dim in self.templates.all_dims() if dim.is_dynamic() and dim.derived_from_op is None]

    def fill(
        self, feed: Mapping[str, CoreTensor], tags: Sequence[str], texts: Mapping[str, list[str]] | None = None
    ) -> TensorDict:
        """The tensors of a batch; sizes on the CPU. "seq_tag" has the tags of the sequences.

        texts: what each sequence has for a key of texts.
        """
        for dim in (*self._dims, self.batch, batch_dim):
            dim.reset_eager()
        size = next(
            (value.data.shape[value.spec.batch] for value in feed.values() if value.spec.batch is not None), None
        )
        number = torch.tensor(len(tags) if size is None else size, dtype=torch.int32)
        for dim in (self.batch, batch_dim, *(dim for dim in self._dims if dim.is_batch_dim())):
            dim.dyn_size_ext = Tensor._new(number, (), name="batch")
        found = TensorDict()
        for key, value in feed.items():
            if key in self.templates:
                found.data[key] = self._filled(key, value)
        for key, values in (texts or {}).items():
            if key in self.templates:
                found.data[key] = self._of_texts(key, values)
        found.data["seq_tag"] = Tensor("seq_tag", (self.batch,), "string", raw_tensor=np.array(list(tags)))
        return found

    def _of_texts(self, key: str, values: list[str]) -> Tensor:
        template = self.templates[key]
        if not dtypes.is_text(template.dtype) or len(template.dims) != 1:
            raise ConfigError(
                f'extern_data["{key}"]',
                f'the data are texts, so it must be {{"shape": (), "dtype": "string"}}, but is {template} instead',
            )
        return Tensor(key, template.dims, "string", raw_tensor=np.array(values))

    def _filled(self, key: str, value: CoreTensor) -> Tensor:
        found = self.templates[key].copy_template()
        found.available_for_inference = self.templates[key].available_for_inference
        lengths = {}
        for dim, core in zip(found.dims, value.spec.dims, strict=True):
            if core in value.lengths:
                lengths[dim] = value.lengths[core].values
        for dim, sizes in lengths.items():
            if not dim.is_dim_known_in_batch():
                dim.dyn_size_ext = Tensor._new(sizes.cpu(), (self.batch,), name=dim.name)
        raw = value.data
        if raw.is_floating_point() and (self.float_dtype or raw.dtype == torch.float32):
            raw = raw.to(self.float_dtype or dtypes.torch_dtype(dtypes.get_default_float_dtype()))
        found.dtype = dtypes.name_of(raw)
        found.raw_tensor = raw if found.dims else raw.cpu().numpy()  # numbers about the epoch, as in the reference
        return found
