"""`Parameter`: a Tensor that a module owns, trained or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from returnn_lite.config_value import ConfigValue
from returnn_lite.frontend import dtypes
from returnn_lite.frontend.const import convert_to_tensor
from returnn_lite.frontend.dim import Dim
from returnn_lite.frontend.errors import WrongUse
from returnn_lite.frontend.layout import arranged, axis_of, show
from returnn_lite.frontend.tensor import Tensor, TensorLike
from returnn_lite.frontend.tensor_base import checked_dims
from returnn_lite.frontend.types import Device
from returnn_lite.tensor.foreign import ForeignDim

_COPY: ContextVar[str] = ContextVar("parameter copy behavior", default="reinit")


@contextmanager
def set_parameter_copy_behavior_ctx(behavior: str) -> Iterator[None]:
    """While open, copies of parameters are "reinit" (drawn again from the same initial value) or "share" (the same)."""
    if behavior not in ("reinit", "share"):
        raise WrongUse(f'the copy behavior must be "reinit" or "share", but is {behavior!r} instead')
    token = _COPY.set(behavior)
    try:
        yield
    finally:
        _COPY.reset(token)


class Parameter(Tensor):
    """`Parameter(dims, dtype)`, or of a Tensor that gives axes and initial value. Its data is a torch parameter.

    trainable: by default unless it is auxiliary or of ints. auxiliary: running statistics and the like, a buffer in the
    torch module. initial: a number, array, Tensor, or what is called with axes and dtype; 0 without.
    """

    def __init__(
        self,
        dims_or_tensor: Any = None,
        dtype: str | None = None,
        *,
        dims: Sequence[Dim] | None = None,
        sparse_dim: Dim | None = None,
        trainable: bool | None = None,
        auxiliary: bool = False,
        non_critical_for_restore: bool = False,
        weight_decay: float | None = 0.0,
        initial: Any = None,
        raw_tensor: Any = None,
        device: str | None = None,
    ) -> None:
        value = dims_or_tensor if isinstance(dims_or_tensor, Tensor) else None
        if value is not None:
            if initial is not None or dims is not None:
                raise WrongUse("a Parameter of a Tensor must have no `initial` and no `dims`")
            initial, dtype = value, dtype or value.dtype
            dims, sparse_dim = value.dims, sparse_dim if sparse_dim is not None else value.sparse_dim
        elif dims_or_tensor is not None:
            if dims is not None:
                raise WrongUse("the axes of a Parameter must be given once")
            dims = dims_or_tensor
        if dims is None or isinstance(dims, int | str | ForeignDim):
            raise WrongUse(f"the axes of a Parameter must be a list of Dims, but are {dims!r} instead")
        axes = checked_dims(dims, "a Parameter")
        _check_different(axes)
        default = dtypes.get_default_array_index_dtype() if sparse_dim else dtypes.get_default_float_dtype()
        super().__init__("parameter", axes, dtype or default, sparse_dim=sparse_dim)
        self._trainable, self._auxiliary, self._weight_decay = trainable, auxiliary, weight_decay
        self.non_critical_for_restore = non_critical_for_restore
        self._initial: Any = None
        where = dtypes.get_default_device() if device is None else device
        self._make(where, raw_tensor)
        if initial is not None or raw_tensor is None:
            self.initial = initial

    def _make(self, device: Any, raw: Any) -> None:
        """The torch parameter, of zeros or this data."""
        if raw is None:
            sizes = [dim.padded_size() for dim in self._dims]
            raw = torch.zeros(sizes, dtype=dtypes.torch_dtype(self._dtype), device=device)
        if not isinstance(raw, torch.nn.Parameter):
            raw = torch.nn.Parameter(raw, requires_grad=False)
        self.raw_tensor = raw
        self._set_requires_grad()

    def _set_requires_grad(self) -> None:
        found = self._trainable
        if found is None:
            found = not self._auxiliary
        if isinstance(self._raw, torch.nn.Parameter):
            floats = self._raw.is_floating_point() or self._raw.is_complex()
            self._raw.requires_grad_(bool(found) and floats)

    def set_raw(self, raw: torch.nn.Parameter) -> None:
        """Other data, of any type."""
        self._dtype, self._raw = dtypes.name_of(raw), raw

    # --- options ------------------------------------------------------------------------------------------------------

    @property
    def trainable(self) -> bool | None:
        """Whether it is trained; None for the default."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool | None) -> None:
        self._trainable = value
        self._set_requires_grad()

    @property
    def auxiliary(self) -> bool:
        """Whether it is a statistic or the like."""
        return self._auxiliary

    @property
    def weight_decay(self) -> float:
        """A factor for user code; the engine ignores it."""
        return self._weight_decay or 0.0

    @weight_decay.setter
    def weight_decay(self, value: float | None) -> None:
        self._weight_decay = value

    @property
    def initial(self) -> ConfigValue:
        """The initial value, or what draws it."""
        return self._initial

    @initial.setter
    def initial(self, value: ConfigValue) -> None:
        self._initial = value
        raw: torch.Tensor = self._raw
        with torch.no_grad():
            found = value
            if callable(value):
                found = value(self._dims, self._dtype, sparse_dim=self._sparse_dim, device=self.device, out=self)
                if found is None or found is self:
                    return
            if isinstance(found, Tensor):
                raw.copy_(arranged(found.raw_tensor, found.dims, self._dims).expand(raw.shape))
                return
            try:
                raw.copy_(torch.as_tensor(0 if found is None else found))
            except (RuntimeError, TypeError, ValueError):
                text = f"must be a number, an array of their sizes, a Tensor or of rf.init, but is {found!r} instead"
                raise WrongUse(f"`initial` of a parameter with the axes {show(self._dims)} {text}") from None

    # --- values -------------------------------------------------------------------------------------------------------

    def assign(self, value: TensorLike) -> None:
        """Sets the value, a Tensor or number; broadcast by its axes, without a gradient."""
        with torch.no_grad():
            self._raw.copy_(self._for(value))

    def assign_add(self, value: TensorLike) -> None:
        """Adds to the value, without a gradient."""
        with torch.no_grad():
            self._raw.add_(self._for(value))

    def _for(self, value: Any) -> Any:
        found = convert_to_tensor(value, dtype=None if isinstance(value, Tensor) else self._dtype)
        if any(dim not in self._dims for dim in found.dims):
            raise WrongUse(f"a parameter with the axes {show(self._dims)} cannot be assigned {found}")
        return arranged(found.raw_tensor, found.dims, self._dims).to(self._raw.device, self._raw.dtype)

    def assign_key(self, *, axis: Dim, key: Tensor | int | slice, key_dim: Dim | None, value: TensorLike) -> None:
        """Sets the value at positions of an axis: an int, or a slice, which `key_dim` stands for in `value`."""
        at = axis_of(self._dims, axis, self)
        dims = (*self._dims[:at], *(() if key_dim is None else (key_dim,)), *self._dims[at + 1 :])
        position = int(key.raw_tensor) if isinstance(key, Tensor) else key
        found = convert_to_tensor(value, dtype=None if isinstance(value, Tensor) else self._dtype)
        with torch.no_grad():
            part = self._raw[(slice(None),) * at + (position,)]
            part.copy_(arranged(found.raw_tensor, found.dims, dims).to(part.device, part.dtype))

    def move(self, *, device: Device = None, dtype: str | None = None) -> None:
        """Moves it to a device, and floats to a type."""
        wanted = dtypes.torch_dtype(dtype) if dtype is not None and self._raw.is_floating_point() else None
        self._raw.data = self._raw.data.to(device=device, dtype=wanted)
        self._dtype = dtypes.name_of(self._raw)

    # --- copies -------------------------------------------------------------------------------------------------------

    def __copy__(self) -> Parameter:
        if _COPY.get() == "share":
            return self
        found = Parameter(
            self._dims,
            self._dtype,
            sparse_dim=self._sparse_dim,
            trainable=self._trainable,
            auxiliary=self._auxiliary,
            non_critical_for_restore=self.non_critical_for_restore,
            weight_decay=self._weight_decay,
            initial=self._initial,
            device=self.device,
        )
        found.name, found.feature_dim_axis = self.name, self.feature_dim_axis
        return found

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Parameter:
        found = self.__copy__()
        if memo is not None:
            memo[id(self)] = found
        return found

    def copy(self, name: str | None = None) -> Tensor:
        """The value as a Tensor."""
        found = self._like(self._raw)
        found.name = self.name if name is None else name
        return found


def _check_different(dims: tuple[Dim, ...]) -> None:
    for i, dim in enumerate(dims):
        for other in dims[:i]:
            if dim == other and dim.match_priority == other.match_priority:
                hint = "use rf.dim_match_priority_when_needed for the first"
                raise WrongUse(f"a parameter cannot have the axis {dim} twice in {show(dims)}; {hint}")
