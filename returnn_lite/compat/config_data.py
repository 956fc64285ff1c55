"""`Data(…)` as configs make it: the answer of a function `out_type`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.layers.views.data_view import DataView, LengthsOf
from returnn_lite.tensor import Dim
from returnn_lite.tensor.build import data_spec
from returnn_lite.tensor.foreign import with_core_dims


class Data:
    """Axes as they are given: `dim_tags`, or a `shape` without batch, None being an axis with lengths.

    Without both there is a time axis, and for dense data a feature axis of size `dim`.
    """

    placeholder = None

    def __init__(
        self,
        name: str = "",
        *,
        shape: Sequence[int | None] | None = None,
        dim: int | None = None,
        sparse: bool = False,
        dtype: str | None = None,
        size_placeholder: Mapping[int, Any] | None = None,
        dim_tags: Sequence[Dim] | None = None,
        dims: Sequence[Dim] | None = None,
        sparse_dim: Dim | None = None,
        **roles: Any,
    ) -> None:
        self.name = name
        self.sparse = sparse or sparse_dim is not None
        self.sparse_dim: Dim | None = with_core_dims(sparse_dim)
        self.dim = dim if dim is not None or self.sparse or not shape else shape[-1]
        self.dtype = dtype or ("int32" if self.sparse else "float32")
        self.dim_tags: Sequence[Dim] | None = with_core_dims(dim_tags or dims)
        if shape is None and not self.dim_tags:
            shape = (None,) if self.sparse else (None, dim)
        self.shape = None if shape is None else tuple(shape)
        self.size_placeholder = dict(size_placeholder or {})
        known = ("batch_dim_axis", "time_dim_axis", "feature_dim_axis")
        self._roles = {key: value for key, value in roles.items() if key in known}

    def get_sequence_lengths(self) -> Any:
        """The lengths that were given for the first axis."""
        return self.size_placeholder.get(0)

    def __getattr__(self, name: str) -> Any:
        """Positions and sizes of the axes, and all else that a layer's output tells of them."""
        if name.startswith("_"):
            raise AttributeError(name)
        shape = {"shape": self.shape} if self.shape else {}
        return getattr(DataView(data_spec(self.name, self.out_type | shape), self.name), name)

    @property
    def out_type(self) -> dict[str, Any]:
        """As an `out_type` dict."""
        found: dict[str, Any] = {"dtype": self.dtype, "sparse": self.sparse, **self._roles}
        if self.dim_tags:
            found["dim_tags"] = tuple(self.dim_tags)
        elif self.shape is not None:
            found["shape"] = tuple(self._size(i, size) for i, size in enumerate(self.shape))
        if self.sparse_dim is not None:
            return found | {"sparse_dim": self.sparse_dim}
        return found | ({"dim": self.dim} if self.sparse else {})

    def _size(self, axis: int, size: int | None) -> Any:
        lengths = self.size_placeholder.get(axis)
        return lengths.dim if isinstance(lengths, LengthsOf) else size
