"""Rows of tables, and other dicts, as sequences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.casting import cast, class_indices
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import DataError
from returnn_lite.datasets.typed_keys import TypedKeys
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.vocab import Vocabulary, create_vocab

NUMBERS = {"i": "integers", "u": "integers", "f": "numbers", "b": "truth values"}


class Rows(TypedKeys):
    """A dataset whose keys are entries of dicts: `data_format` {entry: {"dim", "shape" or "ndim", "dtype", "vocab" …}}.

    Texts become classes where there is a `vocab`.
    """

    vocabs: dict[str, Vocabulary]

    def set_format(self, data_format: Mapping[str, ConfigDict]) -> None:
        """Takes over the option `data_format`."""
        self.vocabs, formats = {}, {}
        for column, options in data_format.items():
            options = dict(options)
            vocab = options.pop("vocab", None)
            if vocab is not None:
                self.vocabs[column] = create_vocab(vocab, f'{self.name}: data_format["{column}"]["vocab"]')
                options = {"dim": self.vocabs[column].num_labels, "sparse": True, **options}
                self.labels[column] = self.vocabs[column].labels
            if "ndim" in options and "shape" not in options:
                ndim = options.pop("ndim")
                dense = ndim > 0 and not options.get("sparse")
                options["shape"] = (None,) * (ndim - dense) + ((options.get("dim"),) if dense else ())
            formats[column] = options
        self.set_types(formats, f"{self.name}: data_format")
        self.num_inputs = self.num_outputs.get("data", (0, 0))[0]

    def seq_of_row(self, tag: str, row: Mapping[str, ConfigValue]) -> Seq:
        """The arrays of a row. DataError, with the tag, for what is missing or of another kind."""
        place = f'{self.name}: sequence "{tag}"'
        try:
            return {key: self._array(place, key, self._entry(row, key)) for key in self.types}
        except DataError:
            raise
        except (ConfigError, ValueError, TypeError) as exc:
            raise DataError(place, str(exc)) from None

    def _entry(self, row: Mapping[str, ConfigValue], key: str) -> ConfigValue:
        if key not in row:
            hint = did_you_mean(key, list(row))
            raise ConfigError(key, f"no such entry; known: {', '.join(map(str, row))}{hint}")
        return row[key]

    def _array(self, place: str, key: str, value: ConfigValue) -> np.ndarray:
        dtype = self.get_data_dtype(key)
        if key in self.vocabs:
            if not isinstance(value, str):
                raise ConfigError(key, f"must be a text to use a vocabulary, but is {value!r}")
            return class_indices(self.vocabs[key].get_seq(value), dtype, key)
        if dtype == "string":
            return np.array(str(value))
        array = np.asarray(value)
        if array.dtype.kind not in NUMBERS:
            raise ConfigError(key, f"must be numbers, or needs a vocab, but is {str(value)[:50]!r}")
        ndim = self._dim_ndim(key)[1]
        if array.ndim != ndim:
            raise ConfigError(key, f"must have {ndim} axes as in data_format, but has the shape {array.shape}")
        return cast(array, dtype, place, f'"{key}"')

    def get_target_list(self) -> list[str]:
        """All keys."""
        return self.get_data_keys()
