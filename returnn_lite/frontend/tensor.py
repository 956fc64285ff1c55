"""`Tensor`: torch data with named axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import did_you_mean
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.current import marking
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import show
from returnn_lite.frontend.old_style import UNSET, described, out_type
from returnn_lite.frontend.operators import TensorOperators
from returnn_lite.frontend.sizes import num_elements_of_shape
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.frontend.tensor_copies import TensorCopies
from returnn_lite.frontend.types import AnyTensor, Operand, Option
from returnn_lite.tensor.foreign import with_core_dims

_OLD = {
    *("shape", "dim", "sparse", "dim_tags", "batch_dim_axis", "time_dim_axis", "feature_dim_axis", "vocab"),
}
_OPTIONS = sorted(_OLD | {"name", "dims", "dtype", "sparse_dim", "feature_dim", "raw_tensor"})
_IGNORED = {
    "undefined",
    "size_placeholder",
    "placeholder",
    "batch",
    "beam",
    "control_flow_ctx",
    "auto_create_placeholders",
}


class Tensor(TensorCopies["Tensor"], TensorOperators["Tensor"]):
    """`Tensor(name, dims, dtype)`, with `raw_tensor=` data, else a template. The data must fit the axes and the dtype.

    sparse_dim: the axis of the classes that the values count. feature_dim: the axis of the features. Older descriptions
    (`shape`, `dim`, `sparse` …) have no `dims`.
    """

    __slots__ = ("_older", "__weakref__")

    def __init__(
        self,
        name: str = "",
        dims: Sequence[Dim] | None = None,
        dtype: str | None = None,
        *,
        sparse_dim: Dim | None = None,
        feature_dim: Dim | None = None,
        feature_dim_axis: Any = UNSET,
        raw_tensor: Any = None,
        version: int | None = None,
        available_for_inference: bool = True,
        **older: Any,
    ) -> None:
        self.name, self.available_for_inference, self._raw, self._vocab = name, available_for_inference, None, None
        raw_tensor = older.pop("placeholder", None) if raw_tensor is None else raw_tensor
        self._older: dict[str, Any] | None = None
        if dims is not None and version == 1:
            dims, older = None, {**older, "dim_tags": checked_dims(dims, f"tensor {name!r}")}
        if sparse_dim is not None and not isinstance(sparse_dim, Dim):
            raise WrongUse(f"`sparse_dim` of tensor {name!r} must be an axis, but is {sparse_dim!r} instead")
        unknown = [key for key in older if key not in _OLD | _IGNORED]
        if unknown:
            raise WrongUse(f"tensor {name!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], _OPTIONS)}")
        if dims is None:
            self._describe(dtype, sparse_dim, feature_dim_axis, older)
        else:
            self._dims, self._time_axis, self.version = checked_dims(dims, f"tensor {name!r}"), None, version or 2
            self._sparse_dim, self.feature_dim_axis = sparse_dim, None
            if dtype is None and raw_tensor is None:
                raise WrongUse(f"tensor {name!r} with the axes {show(self._dims)} must have a `dtype`")
            self._dtype = dtypes.name_of(raw_tensor) if dtype is None else _checked_dtype(dtype)
            if feature_dim_axis is not UNSET and feature_dim_axis is not None:
                self.feature_dim_axis = feature_dim_axis % len(self._dims)
        if feature_dim is not None:
            self.feature_dim = feature_dim
        classes = self.feature_dim_or_sparse_dim
        if older.get("vocab") is not None and classes is not None and classes.vocab is None:
            classes.vocab = older["vocab"]
        if raw_tensor is not None:
            self.raw_tensor = raw_tensor

    def _describe(
        self, dtype: str | None, sparse_dim: Dim | None, feature_dim_axis: Any, older: dict[str, Any]
    ) -> None:
        known = {key: value for key, value in older.items() if key in _OLD}
        if sparse_dim is None and not any(key in known for key in ("shape", "dim", "dim_tags")):
            raise WrongUse(f"tensor {self.name!r} must have `dims`, or a `shape` or `dim`")
        found = described(self.name, sparse_dim=sparse_dim, dtype=dtype, feature_dim_axis=feature_dim_axis, **known)
        self._dims, self._dtype, self._sparse_dim = found.dims, found.dtype, found.sparse_dim
        self._time_axis, self.feature_dim_axis, self.version = found.time, found.feature, 1
        self._vocab, self._older = known.get("vocab"), {**older}

    @staticmethod
    def _new(
        raw: Any,
        dims: Sequence[Dim],
        *,
        sparse_dim: Dim | None = None,
        feature_axis: int | None = None,
        name: str = "",
    ) -> Tensor:
        """A tensor of data that is known to fit its axes."""
        found = object.__new__(Tensor)
        found._dims, found._raw, found.name = dims if type(dims) is tuple else tuple(dims), raw, name
        found._sparse_dim, found.feature_dim_axis = sparse_dim, feature_axis
        found._dtype = dtypes.NAMES[raw.dtype] if isinstance(raw, torch.Tensor) else dtypes.name_of(raw)
        found._time_axis, found.version, found._vocab, found.available_for_inference = None, 2, None, True
        found._older = None
        return found

    def _template(self, dims: Sequence[Dim], feature: int | None, name: str, dtype: str | None = None) -> Tensor:
        found = Tensor(name, dims, dtype or self._dtype, sparse_dim=self._sparse_dim)
        found.feature_dim_axis, found.available_for_inference = feature, self.available_for_inference
        return found

    @property
    def out_type(self) -> dict[str, ConfigValue]:
        """The axes as layer nets want them; those of a `shape` by their sizes."""
        if self._older is not None and "dim_tags" not in self._older:
            return out_type(self._older, self._dtype, with_core_dims(self._sparse_dim))
        sparse = with_core_dims(self._sparse_dim)
        return {"dim_tags": with_core_dims(self._dims), "dtype": self._dtype, "sparse_dim": sparse}

    def num_elements(self, *, use_mask: bool = True) -> Operand:
        """The number of entries that are no padding: an int, or a tensor."""
        return num_elements_of_shape(self._dims, use_mask=use_mask, device=self.device)

    # --- the run context ----------------------------------------------------------------------------------------------

    def mark_as_loss(self, name: str, **options: Option) -> None:
        """A loss of this training step; see `RunContext.mark_as_loss`."""
        context = marking()
        context.mark_as_loss(self, name, **options)

    def mark_as_output(self, name: str, shape: Sequence[Dim] | None = None) -> None:
        """An output of this forward step; see `RunContext.mark_as_output`."""
        marking().mark_as_output(self, name, dims=shape)

    def mark_as_default_output(self, shape: Sequence[Dim] | None = None) -> None:
        """The output "output" of this forward step."""
        marking().mark_as_default_output(self, shape=shape)


class Sizes(Tensor):
    """The sizes of an axis that are still to come: whole numbers of any type."""

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        found = dtypes.name_of(raw)
        if dtypes.is_integer(found):
            self._dtype = found
        super()._check(raw)


AnyTensor.new = staticmethod(Tensor._new)
# What stands for a tensor in an operation: a number, or data whose axes are known from elsewhere.
TensorLike = Tensor | int | float | complex | np.generic | np.ndarray[Any, Any] | torch.Tensor
RawTensorTypes = int | float | complex | np.number | np.ndarray | bool | str | torch.Tensor


def _checked_dtype(dtype: str) -> str:
    if not dtypes.is_text(dtype):
        dtypes.torch_dtype(dtype)
    return dtype
