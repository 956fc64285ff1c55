"""HDF files with a pair of arrays per sequence: inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import h5py
import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.casting import cast
from returnn_lite.datasets.combined.window import stack_window
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.ordering import seq_order
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.file import Handles
from returnn_lite.log import Log

MIN_VARIANCE = 1e-20


@dataset("StereoHdfDataset")
class StereoHdfDataset(Dataset):
    """The arrays `inputs/<i>` ("data") and `outputs/<i>` ("classes") of an HDF file, or of the files a .bundle lists.

    `normalizationFile` is an HDF file with mean and variance: `inputs/mean`, `inputs/variance`, and `outputs/…`.
    Partitions are cut before the sequences are ordered; the last one takes what is left over.
    """

    constant_parts = ("handles",)

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        hdfFile: str,
        num_outputs: int | None = None,
        normalizationFile: str | None = None,
        flag_normalizeInputs: bool = True,
        flag_normalizeTargets: bool = True,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.handles = Handles()
        self.index: list[tuple[str, list[str]]] = [(path, self._names(path)) for path in self._files(hdfFile)]
        self.starts = np.cumsum([0] + [len(names) for _, names in self.index])
        if not self.starts[-1]:
            raise ConfigError(f"{self.name}: hdfFile", f"{hdfFile} has no sequences in the group inputs")
        wanted = {"data": flag_normalizeInputs, "classes": flag_normalizeTargets}
        self.norms = {key: self._norm(normalizationFile, key) for key, on in wanted.items() if on}
        first = self._arrays(0)
        self.num_inputs = first["data"].shape[1]
        self.num_outputs = {"data": (self.num_inputs, 2)}
        if "classes" in first:
            width = first["classes"].shape[1] if first["classes"].ndim == 2 else 1
            self.num_outputs["classes"] = (num_outputs or width, min(first["classes"].ndim, 2))

    context = 1  # frames that are stacked

    def _files(self, path: str) -> list[str]:
        if not path.endswith(".bundle"):
            return [path]
        if not os.path.isfile(path):
            raise ConfigError(f"{self.name}: hdfFile", f"file {path} does not exist")
        with open(path) as file:
            return [line.strip() for line in file if line.strip()]

    def _names(self, path: str) -> list[str]:
        with self.handles.open(path) as file:
            if not isinstance(file.get("inputs"), h5py.Group):
                raise ConfigError(f"{path}: inputs", "must be a group with an array per sequence")
            names = list(file["inputs"])
            return sorted(names, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))

    def _norm(self, path: str | None, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        if path is None:
            return None
        group = "inputs" if key == "data" else "outputs"
        with self.handles.open(path) as file:
            if f"{group}/mean" not in file or f"{group}/variance" not in file:
                raise ConfigError(f"{path}: {group}", "must have the arrays mean and variance")
            mean, variance = file[f"{group}/mean"][()].ravel(), file[f"{group}/variance"][()].ravel()
        return mean, np.sqrt(np.maximum(variance, MIN_VARIANCE))

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Sequences of all files."""
        return int(self.starts[-1])

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        parts = self.options.partition_epoch or 1
        if epoch is None or seq_list is not None or given is not None or parts == 1:
            return super()._new_order(epoch, seq_list, given)
        total, part = self.get_total_num_seqs(), (epoch - 1) % parts
        size = total // parts
        start, end = part * size, total if part == parts - 1 else (part + 1) * size
        options = replace(self.order_options, partition_epoch=None, fixed_random_seed=self.order_options.seed(epoch))
        return start + seq_order(options, epoch, end - start, lambda: None, lambda: self.get_all_tags()[start:end])

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads and normalises the arrays."""
        return [self._arrays(int(i)) for i in indices]

    def _arrays(self, index: int) -> Seq:
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        path, names = self.index[number]
        name = names[index - self.starts[number]]
        with self.handles.open(path) as file:
            raw = {"data": np.asarray(file["inputs"][name][()])}
            if "outputs" in file:
                if name not in file["outputs"]:
                    raise DataError(
                        f'{self.name}: sequence "{self.corpus_tag(index)}"', f"{path} has no outputs/{name}"
                    )
                raw["classes"] = np.asarray(file["outputs"][name][()])
        for key, array in raw.items():
            if array.ndim != 2:
                raise DataError(
                    f'{self.name}: sequence "{self.corpus_tag(index)}"',
                    f'"{key}" must have 2 axes, but is {array.shape}',
                )
        classes = {"classes": self._targets(index, raw["classes"])} if "classes" in raw else {}
        return {"data": stack_window(self._normalised("data", raw["data"]), self.context), **classes}

    def _targets(self, index: int, array: np.ndarray) -> np.ndarray:
        if array.shape[1] != 1:
            return self._normalised("classes", array)
        return cast(array[:, 0], "int32", f'{self.name}: sequence "{self.corpus_tag(index)}"', '"classes"')

    def _normalised(self, key: str, array: np.ndarray) -> np.ndarray:
        norm = self.norms.get(key)
        return (array if norm is None else (array - norm[0]) / norm[1]).astype("float32")


@dataset("DatasetWithTimeContext")
class DatasetWithTimeContext(StereoHdfDataset):
    """As StereoHdfDataset, each frame with `tau` neighbours at both sides, zeros outside."""

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        hdfFile: str,
        tau: int = 1,
        log: Log | None = None,
        **options: ConfigValue,
    ):
        self.context = 2 * tau + 1
        super().__init__(base, hdfFile=hdfFile, log=log, **options)
