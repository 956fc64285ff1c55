"""Datasets of made-up numbers of chosen dims and lengths, for tests of set-ups and speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.combined.window import stack_window
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.synthetic.generated import GeneratedDataset
from returnn_lite.datasets.typed_keys import TypedKeys, shape_of_options
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log


def counted(start: int, shape: Sequence[int], maximum: float, shift: float, scale: float) -> np.ndarray:
    """((k mod maximum) + shift) * scale for k = start, start + 1, …, in rows: float64 of this shape."""
    numbers = np.arange(start, start + math.prod(shape)) % maximum
    return (numbers + shift).reshape(shape) * scale


def output_dims(value: ConfigValue, path: str) -> dict[str, tuple[int, int]]:
    """{key: (dim, ndim)} from a number (of classes) or a dict; in it numbers mean ndim 2 for "data", else 1."""
    if isinstance(value, int):
        value = {"classes": value}
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"must be a number or a dict key -> (dim, ndim), but is {value!r} instead")
    return {
        key: (int(dims[0]), int(dims[1])) if isinstance(dims, list | tuple) else (int(dims), 2 if key == "data" else 1)
        for key, dims in value.items()
    }


@dataset("DummyDatasetMultipleSequenceLength")
class DummyDatasetMultipleSequenceLength(GeneratedDataset):
    """Consecutive numbers as data and classes; `seq_len` {"data": frames, "classes": frames} for all sequences."""

    dtypes = ("float64", "int64")

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        input_dim: int,
        output_dim: ConfigValue,
        num_seqs: float,
        seq_len: ConfigValue = None,
        input_max_value: float = 10.0,
        input_shift: float | None = None,
        input_scale: float | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, num_seqs=num_seqs, log=log)
        self.seq_len = self._lengths_of(seq_len)
        self.maximum = input_max_value
        self.shift = -input_max_value / 2.0 if input_shift is None else input_shift
        self.scale = 1.0 / input_max_value if input_scale is None else input_scale
        dims = output_dims(output_dim, f"{self.name}: output_dim")
        self.frame_dim = input_dim
        self.set_dims(input_dim, {key: value for key, value in dims.items() if key != "data"})

    def _lengths_of(self, seq_len: ConfigValue) -> dict[str, int]:
        seq_len = {"data": 10, "classes": 20} if seq_len is None else seq_len
        return dict(seq_len) if isinstance(seq_len, Mapping) else {"data": seq_len, "classes": seq_len}

    def generate_at(self, index: int, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        data_len, classes_len = self.seq_len["data"], self.seq_len["classes"]
        frames = counted(index, (data_len, self.frame_dim), self.maximum, self.shift, self.scale)
        seq = {"data": stack_window(frames.astype(self.dtypes[0]), self.window)}
        first = index + data_len * self.frame_dim
        for key in self.num_outputs:
            if key != "data":
                classes = (first + np.arange(classes_len)) % max(self.num_outputs[key][0], 1)
                seq[key] = classes.astype(self.dtypes[1])
        return seq

    def corpus_lengths(self) -> dict[str, np.ndarray] | None:
        """All are equally long."""
        if math.isinf(self._total):
            return None
        counts = {key: self.seq_len["data" if key == "data" else "classes"] for key in self.num_outputs}
        return {key: np.full(int(self._total), count) for key, count in counts.items()}

    def sort_lengths(self) -> None:
        """Orders by length are not possible."""
        return None


@dataset("DummyDataset")
class DummyDataset(DummyDatasetMultipleSequenceLength):
    """Consecutive numbers as data and classes; all sequences have `seq_len` frames.

    Value number k, beginning with the corpus index, is ((k mod input_max_value) + input_shift) * input_scale.
    """

    dtypes = ("float32", "int32")

    def _lengths_of(self, seq_len: ConfigValue) -> dict[str, int]:
        return super()._lengths_of(2 if seq_len is None else seq_len)


@dataset("DummyDatasetMultipleDataKeys")
class DummyDatasetMultipleDataKeys(GeneratedDataset):
    """Consecutive numbers for the keys `data_keys`, with `output_dim` {key: (dim, ndim)}, `seq_len` one or {key: …}."""

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        output_dim: ConfigDict,
        num_seqs: float,
        seq_len: ConfigValue = None,
        input_max_value: float = 10.0,
        input_shift: float | None = None,
        input_scale: float | None = None,
        data_keys: Sequence[str] | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, num_seqs=num_seqs, log=log)
        self.keys = list(data_keys or ["data", "classes"])
        self.num_outputs = output_dims(output_dim, f"{self.name}: output_dim")
        missing = [key for key in self.keys if key not in self.num_outputs]
        if missing:
            raise ConfigError(f"{self.name}: output_dim", f"must have all data_keys, but {missing} are missing")
        length = 20 if seq_len is None else seq_len
        self.seq_len = dict(length) if isinstance(length, Mapping) else dict.fromkeys(self.keys, length)
        self.maximum = input_max_value
        self.shift = -input_max_value / 2.0 if input_shift is None else input_shift
        self.scale = 1.0 / input_max_value if input_scale is None else input_scale

    def generate_at(self, index: int, rng: np.random.RandomState) -> Seq:
        """One sequence; the keys share one counter."""
        seq, at = {}, index
        for key in self.keys:
            (dim, ndim), length = self.num_outputs[key], self.seq_len[key]
            if ndim <= 1:
                seq[key], size = np.arange(at, at + length) % dim, length
            else:
                seq[key], size = counted(at, (length, dim), self.maximum, self.shift, self.scale), length * dim
            at += size
        return seq

    def get_data_keys(self) -> list[str]:
        """ "data" and "classes", if they are among the option `data_keys`."""
        return [key for key in self.keys if key in ("data", "classes")] or self.keys


@dataset("DummyGenericDataset")
class DummyGenericDataset(TypedKeys, GeneratedDataset):
    """Random numbers for any `data_template` (as `extern_data`).

    `seq_lens` is a number, a range (smallest, largest), or one of these per key or Dim; drawn for each key alone.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        data_template: Mapping[str, ConfigDict],
        num_seqs: float,
        seq_lens: ConfigValue = None,
        log: Log | None = None,
    ):
        GeneratedDataset.__init__(self, base, num_seqs=num_seqs, log=log)
        self.set_types(data_template, f"{self.name}: data_template")
        self.num_inputs = self.num_outputs.get("data", (0, 0))[0]
        self.seq_lens = (1, 10) if seq_lens is None else seq_lens

    def generate_at(self, index: int, rng: np.random.RandomState) -> Seq:
        """One sequence."""
        return {key: self._random(key, rng) for key in self.types}

    def _random(self, key: str, rng: np.random.RandomState) -> np.ndarray:
        shape = shape_of_options(self.types[key])
        open_axes = [
            (of, axis)
            for of, options in self.types.items()
            for axis, size in enumerate(shape_of_options(options))
            if size is None
        ]
        lengths = [self._length(of, axis, rng) for of, axis in open_axes]
        own = self._first_open_axis(key)
        sizes = [lengths[own + shape[:i].count(None)] if size is None else size for i, size in enumerate(shape)]
        dtype = self.get_data_dtype(key)
        if self.is_data_sparse(key):
            return rng.randint(0, max(self.get_data_dim(key), 1), size=sizes).astype(dtype)
        if dtype.startswith("float"):
            return rng.standard_normal(sizes).astype(dtype)
        return rng.randint(0, 10, size=sizes).astype(dtype)

    def _first_open_axis(self, key: str) -> int:
        """Number of axes without fixed size of the keys before: the lengths of all keys are drawn for each of them."""
        before = list(self.types)[: list(self.types).index(key)]
        return sum(shape_of_options(self.types[of]).count(None) for of in before)

    def _length(self, key: str, axis: int, rng: np.random.RandomState) -> int:
        lens = self.seq_lens
        if isinstance(lens, Mapping):
            dims = self.types[key].get("dims")
            lens = lens.get(key, (1, 10) if dims is None else lens.get(dims[axis], (1, 10)))
        if isinstance(lens, int):
            return lens
        low, high = lens
        return int(rng.randint(low, high + 1))
