"""One sequence as functions of a config see it: named tensors with numpy data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from returnn_lite.datasets.base import Dataset

if TYPE_CHECKING:
    from returnn_lite.frontend.tensor import Tensor
    from returnn_lite.frontend.tensor_dict import TensorDict

# Tensors of whatever kind a function of the config works with; `raw` makes arrays of them.
NamedTensors: TypeAlias = Mapping[str, Any]


class SeqTensors:
    """Makes the tensors of a dataset's sequences. Those of one key have the same axes: (time, …) as arrays have them,
    the time of any length.
    """

    def __init__(self, dataset: Dataset) -> None:
        # brings torch, which other datasets do without
        from returnn_lite.frontend.tensor import Tensor
        from returnn_lite.frontend.tensor_dict import TensorDict

        self.dataset, self._tensor_class, self._dict_class = dataset, Tensor, TensorDict
        self._templates: dict[tuple[str, str, tuple[int, ...]], Tensor] = {}

    def of(self, seq: Mapping[str, np.ndarray], *, index: int, tag: str, complete: float) -> TensorDict:
        """The data by key, and beside them the scalars seq_idx, seq_tag and complete_frac."""
        found = self._dict_class()
        found.data = {key: self._tensor(key, np.asarray(array)) for key, array in seq.items()}
        extra = (("seq_idx", "int32", index), ("seq_tag", "string", tag), ("complete_frac", "float32", complete))
        for name, dtype, value in extra:
            array = np.array(value) if dtype == "string" else np.array(value, dtype)
            found.data[name] = self._tensor_class(name, (), dtype, raw_tensor=array)
        return found

    def _tensor(self, key: str, array: np.ndarray) -> Tensor:
        time = self.dataset.has_time(key) and not self.dataset.is_text(key)
        at = (key, array.dtype.str if array.dtype.kind in "iufb" else "string", array.shape[1 if time else 0 :])
        if at not in self._templates:
            self._templates[at] = self._template(key, array, time)
        found = self._templates[at].copy_template()
        found.raw_tensor = array
        return found

    def _template(self, key: str, array: np.ndarray, time: bool) -> Tensor:
        if array.dtype.kind not in "iufb":
            return self._tensor_class(key, shape=array.shape, dtype="string", batch_dim_axis=None)
        shape = ((None,) if time else ()) + array.shape[1 if time else 0 :]
        options: dict[str, Any] = {"shape": shape, "dtype": array.dtype.name, "batch_dim_axis": None}
        if self.dataset.is_data_sparse(key):
            options |= {"sparse": True, "dim": self.dataset.get_data_dim(key), "vocab": self._labels(key)}
        return self._tensor_class(key, **options)

    def _labels(self, key: str) -> dict[str, Any] | None:
        labels = self.dataset.labels.get(key)
        return {"class": "Vocabulary", "labels": labels} if labels else None


def raw(value: object) -> np.ndarray:
    """The numpy array of a tensor, or of anything that numpy takes for an array."""
    return np.asarray(getattr(value, "raw_tensor", value))


def items_of(tensors: object) -> NamedTensors:
    """The tensors by name, from a TensorDict of any kind or from a dict."""
    found = tensors if isinstance(tensors, Mapping) else getattr(tensors, "data", None)
    if not isinstance(found, Mapping):
        raise TypeError(f"must be a dict of tensors, but is {type(tensors).__name__} instead")
    return found
