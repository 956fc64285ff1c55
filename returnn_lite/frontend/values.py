"""`Dim`, `Tensor` and `TensorDict`: torch tensors with named axes, and the lengths of these in the batch at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor import Dim as CoreDim
from returnn_lite.tensor import Spec
from returnn_lite.tensor.build import data_spec
from returnn_lite.tensor.dim import SPATIAL
from returnn_lite.tensor.tensor import DTYPE_NAMES


class Dim(CoreDim):
    """An axis with its lengths in the batch at hand, `dyn_size_ext`; None for a fixed size, and while not known.

    `Dim(5, name="heads")` has a fixed size, `Dim(None, name="time")` gets its lengths later, and `Dim(lengths,
    name="time")` has them: int [B], as torch tensor or `Tensor`.
    """

    __slots__ = ("dyn_size_ext",)

    def __init__(self, dimension: Any = None, name: str = "", *, kind: str = SPATIAL, derived: Any = None) -> None:
        fixed = dimension if isinstance(dimension, int) else None
        super().__init__(fixed, name, kind=kind, derived=derived)
        self.dyn_size_ext: Tensor | None = None
        if dimension is not None and fixed is None:
            self.dyn_size_ext = dimension if isinstance(dimension, Tensor) else Tensor(name, raw_tensor=dimension)

    @classmethod
    def of(cls, dim: CoreDim) -> Dim:
        """The same axis, able to hold lengths."""
        if isinstance(dim, cls):
            return dim
        return cls(dim.size, dim.name, kind=dim.kind, derived=("same", (dim,)))

    @property
    def dyn_size(self) -> Any:
        """The lengths int [B] as a torch tensor on the CPU; None if there are none."""
        return None if self.dyn_size_ext is None else self.dyn_size_ext.raw_tensor

    def is_batch_dim(self) -> bool:
        """Whether this is the batch axis."""
        return self.is_batch

    def get_size_tensor(self) -> Tensor:
        """The lengths, or the fixed size. ConfigError if they are not known."""
        if self.size is not None:
            return Tensor(self.name, raw_tensor=torch.tensor(self.size, dtype=torch.int32))
        if self.dyn_size_ext is None or self.dyn_size_ext.raw_tensor is None:
            raise ConfigError("", f"the lengths of axis {self} are not known")
        return self.dyn_size_ext

    def get_dim_value(self) -> int:
        """The size with padding. ConfigError if it is not known."""
        return int(self.get_size_tensor().raw_tensor.max())


class Tensor:
    """`raw_tensor`, a torch tensor (numpy in callbacks, and for texts), with axes `dims`.

    `sparse_dim`: of the classes that the values count; `feature_dim`: the axis of the features, the last fixed one by
    default.
    """

    def __init__(
        self,
        name: str = "",
        dims: Iterable[CoreDim] | None = None,
        dtype: str | None = None,
        *,
        sparse_dim: CoreDim | None = None,
        feature_dim: CoreDim | None = None,
        raw_tensor: Any = None,
    ) -> None:
        self.name = name
        self.dims: tuple[Any, ...] | None = None if dims is None else tuple(dims)
        self.sparse_dim, self.feature_dim = sparse_dim, feature_dim
        self.raw_tensor = raw_tensor
        self._dtype = dtype

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {list(self.dims or ())}, {self.dtype})"

    @property
    def dtype(self) -> str:
        """As configs write it: "float32"."""
        if self._dtype is not None or self.raw_tensor is None:
            return self._dtype or "float32"
        return DTYPE_NAMES.get(self.raw_tensor.dtype) or str(self.raw_tensor.dtype)

    @property
    def device(self) -> Any:
        """Where the data lies."""
        return self.raw_tensor.device

    def get_time_dim_tag(self) -> Any:
        """The first axis with a length per sequence. ConfigError without one."""
        for dim in self.dims or ():
            if dim.dynamic:
                return dim
        raise ConfigError("", f"{self} has no time axis")

    @property
    def out_type(self) -> dict[str, Any]:
        """The axes as layer nets want them."""
        return {"dim_tags": self.dims, "dtype": self.dtype, "sparse_dim": self.sparse_dim}


class TensorDict(dict[str, Tensor]):
    """Tensors by key. A missing key is a ConfigError that lists the others."""

    def __missing__(self, key: str) -> Tensor:
        raise ConfigError("", f"there is no tensor {key!r}{did_you_mean(key, list(self))}; there are {sorted(self)}")

    @property
    def data(self) -> TensorDict:
        """Itself."""
        return self


def declared(options: Mapping[str, Any], path: str) -> TensorDict:
    """Tensors without values from options as in `extern_data` (dim, shape, dims, sparse_dim, …); or `Tensor`s."""
    found = TensorDict()
    if not isinstance(options, Mapping):
        raise ConfigError(path, f"must be a dict of tensors, but is {options!r} instead")
    for key, value in options.items():
        if isinstance(value, Tensor):
            found[key] = value
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path}["{key}"]', f"must be a dict of options, but is {value!r} instead")
        try:
            spec = data_spec(key, value)
        except ConfigError as error:
            raise ConfigError(f'{path}["{key}"]', error.message) from None
        found[key] = of_spec(key, spec)
        for dim in found[key].dims or ():
            if dim.dynamic and dim.dyn_size_ext is None:
                dim.dyn_size_ext = Tensor(dim.name)
    return found


def of_spec(name: str, spec: Spec, raw: Any = None) -> Tensor:
    """A tensor with the axes of a Spec."""
    feature = None if spec.feature is None else spec.dims[spec.feature]
    dims = tuple(Dim.of(dim) for dim in spec.dims)
    return Tensor(name, dims, spec.dtype, sparse_dim=spec.sparse_dim, feature_dim=feature, raw_tensor=raw)
