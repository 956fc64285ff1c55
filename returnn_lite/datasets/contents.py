"""What a dataset holds: its data keys, and their dimensions, dtypes and shapes."""

from __future__ import annotations

from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.datasets.options import NoSuchKey
from returnn_lite.errors import did_you_mean


class Contents:
    """The data keys of a dataset.

    `num_outputs` {key: (dim, ndim)}, ndim with time and without batch; for texts
    {key: {"dtype": "string", "shape": ()}}. `labels` {key: names of the classes}. `num_inputs`: features of "data".
    """

    name: str
    num_inputs: int = 0
    num_outputs: dict[str, ConfigValue]  # pairs, or the options of texts
    labels: dict[str, list[str]]

    def get_data_keys(self) -> list[str]:
        """Names of the data streams."""
        return list(self.num_outputs)

    def get_target_list(self) -> list[str]:
        """Keys that are no input."""
        return [key for key in self.get_data_keys() if key != "data"]

    def get_data_dim(self, key: str) -> int:
        """Size of the feature axis, or number of classes."""
        return self._known_dims(key)[0]

    def _known_dims(self, key: str) -> tuple[int, int]:
        """As `_dim_ndim`; raises NoSuchKey for objects, which have neither dimension nor classes."""
        if self.get_data_dtype(key) == "object":
            raise NoSuchKey(self.name, f'"{key}" are objects, which have no dimension')
        return self._dim_ndim(key)

    def _dim_ndim(self, key: str) -> tuple[int, int]:
        """The entry of `num_outputs`; raises NoSuchKey for an unknown key."""
        if key not in self.num_outputs:
            raise NoSuchKey(
                self.name,
                f'unknown key "{key}"{did_you_mean(key, self.num_outputs)}; known: {self.get_data_keys()}',
            )
        entry: ConfigValue = self.num_outputs[key]
        return (0, len(entry["shape"])) if isinstance(entry, dict) else entry  # a dict: texts

    def is_data_sparse(self, key: str) -> bool:
        """Whether the data are class indices."""
        return self._known_dims(key)[1] <= 1 and not self.is_text(key)

    def get_data_dtype(self, key: str) -> str:
        """Name of the numpy dtype; for texts "string" or, where they are objects to numpy, "object"."""
        entry: ConfigValue = self.num_outputs.get(key)
        if isinstance(entry, dict):
            return str(entry["dtype"])
        return "int32" if self._dim_ndim(key)[1] <= 1 else "float32"

    def is_text(self, key: str) -> bool:
        """Whether the data are texts."""
        return self.get_data_dtype(key) in ("string", "object")

    def get_data_shape(self, key: str) -> list[int | None]:
        """Shape without time; empty for class indices."""
        ndim = self._known_dims(key)[1]
        return [] if ndim <= 1 else [None] * (ndim - 2) + [self.get_data_dim(key)]

    def has_axes(self, key: str) -> bool:
        """Whether the key's data have an axis; else they are one number or text per sequence."""
        return self._dim_ndim(key)[1] >= 1

    def has_time(self, key: str) -> bool:
        """Whether the first axis of the key's data is time; else the data are one value per sequence."""
        return self._dim_ndim(key)[1] >= 1

    def extern_data(self) -> dict[str, ConfigOptions]:
        """Options of a config's `extern_data` for the keys of this dataset."""
        return {key: self._extern_data_of(key) for key in self.get_data_keys()}

    def _extern_data_of(self, key: str) -> ConfigOptions:
        dtype, for_inference = self.get_data_dtype(key), key not in self.get_target_list()
        if dtype == "object":
            return {"shape": (), "dtype": "string", "available_for_inference": for_inference}
        dim = self.get_data_dim(key)
        found: ConfigOptions = {
            "shape": ((None,) if self.has_time(key) else ()) + tuple(self.get_data_shape(key)),
            "sparse": self.is_data_sparse(key) and dtype.startswith(("int", "uint")),
            "dtype": dtype,
            "available_for_inference": for_inference,
        }
        if dim and dtype != "string":
            found["dim"] = dim
        return found
