"""`returnn.datasets` and the modules below it: dataset classes to refer to and to derive from, and what goes with them.

Which module of the original holds which class plays no part here: all of them have all classes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite import datasets
from returnn_lite.compat.modules import vocabularies
from returnn_lite.compat.refusals import refused
from returnn_lite.compat.running import RUNNING
from returnn_lite.datasets import Dataset
from returnn_lite.datasets.combined.map_wrapper import MapDatasetBase
from returnn_lite.datasets.combined.postprocessing import LaplaceOrdering, Sequential
from returnn_lite.datasets.own import ByKeywords, CachedDataset2, DatasetSeq
from returnn_lite.datasets.registry import DATASETS, REFUSED, dataset_class
from returnn_lite.hdf.writer import HDFWriter


@functools.cache
def by_keywords(name: str) -> type[Dataset]:
    """The class as code of configs derives from it, and calls it: all options are keywords."""
    return type(name, (ByKeywords, DATASETS[name]), {"__module__": __name__})


def init_dataset(
    kwargs: Any, extra_kwargs: Mapping[str, Any] | None = None, default_kwargs: Mapping[str, Any] | None = None
) -> Dataset:
    """A dataset from any form of value (see `returnn_lite.datasets.init_dataset`), ready for `init_seq_order`.

    Of a dict, `extra_kwargs` win over its options, and these over `default_kwargs`.
    """
    if isinstance(kwargs, Mapping):
        kwargs = {**(default_kwargs or {}), **kwargs, **(extra_kwargs or {})}
    return datasets.init_dataset(kwargs, config=RUNNING.config)


def get_dataset_class(name: str | type[Dataset]) -> type[Dataset]:
    """The class of this name in configs. ConfigError if there is none."""
    return dataset_class(name, "dataset")


class SimpleHDFWriter(HDFWriter):
    """`HDFWriter` under the names of its options that scripts use.

    extra_type: {key: (dim, ndim, dtype)}, extra_labels: {key: names of the classes}. `swmr` has no effect.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        dim: int | None,
        labels: Sequence[str] | None = None,
        ndim: int | None = None,
        extra_type: Mapping[str, tuple[int, int, str]] | None = None,
        swmr: bool = False,
        extend_existing_file: bool = False,
        extra_labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        types = dict(extra_type or {})
        self.extra_dtypes = {key: dtype for key, (_, _, dtype) in types.items()}
        super().__init__(
            filename,
            dim=dim,
            ndim=ndim,
            labels=labels,
            extra={key: (dim_, ndim_) for key, (dim_, ndim_, _) in types.items()},
            extra_labels=extra_labels,
            extend_existing_file=extend_existing_file,
        )

    def insert(self, data: np.ndarray, tag: str, extra: Mapping[str, np.ndarray] | None = None) -> None:
        """Appends one sequence; further keys as their dtypes in `extra_type`."""
        typed = {key: np.asarray(value, self.extra_dtypes.get(key)) for key, value in (extra or {}).items()}
        super().insert(data, tag, typed)


def names() -> dict[str, Any]:
    """Of all modules of datasets."""
    return {
        **{name: refused(name, reason) for name, reason in REFUSED.items()},
        **{name: by_keywords(name) for name in DATASETS},
        **vocabularies.names(),
        "Lexicon": vocabularies.Lexicon,
        "Dataset": Dataset,
        "DatasetSeq": DatasetSeq,
        "CachedDataset2": CachedDataset2,
        "MapDatasetBase": MapDatasetBase,
        "LaplaceOrdering": LaplaceOrdering,
        "Sequential": Sequential,
        "SimpleHDFWriter": SimpleHDFWriter,
        "init_dataset": init_dataset,
        "get_dataset_class": get_dataset_class,
    }
