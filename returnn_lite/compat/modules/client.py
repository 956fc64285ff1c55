"""What programs that work with configs import: the running config, the log, datasets, the writer of HDF files.

Configs find it under `returnn.config`, `returnn.log`, …; scripts of other programs in `compat_root/returnn`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite import datasets
from returnn_lite.compat.running import RUNNING
from returnn_lite.config import Config
from returnn_lite.datasets import Dataset
from returnn_lite.datasets.combined.map_wrapper import FromListDataset, MapDatasetBase, MapDatasetWrapper
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.log import Log
from returnn_lite.running_config import running_config_ctx


def config_names() -> dict[str, Any]:
    """`returnn.config`."""
    return {
        "Config": Config,
        "get_global_config": get_global_config,
        "global_config_ctx": running_config_ctx,
        "set_global_config": set_global_config,
    }


def log_names() -> dict[str, Any]:
    """`returnn.log`."""
    return {"log": LOG}


def dataset_names() -> dict[str, Any]:
    """`returnn.datasets`."""
    return {"Dataset": Dataset, "init_dataset": init_dataset}


def hdf_names() -> dict[str, Any]:
    """`returnn.datasets.hdf`."""
    return {"SimpleHDFWriter": SimpleHDFWriter}


def map_names() -> dict[str, Any]:
    """`returnn.datasets.map`."""
    return {
        "MapDatasetBase": MapDatasetBase,
        "MapDatasetWrapper": MapDatasetWrapper,
        "FromListDataset": FromListDataset,
    }


def get_global_config(raise_exception: bool = True, **_options: Any) -> Config | None:
    """The config that is running."""
    if RUNNING.config is None and raise_exception:
        raise RuntimeError("there is no config yet")
    return RUNNING.config  # type: ignore[no-any-return]


def set_global_config(config: Config) -> None:
    """Makes this the config that is running."""
    RUNNING.config = config


def init_dataset(
    kwargs: Any, extra_kwargs: Mapping[str, Any] | None = None, default_kwargs: Mapping[str, Any] | None = None
) -> Dataset:
    """A dataset from any form of value (see `returnn_lite.datasets.init_dataset`), ready for `init_seq_order`.

    Of a dict, `extra_kwargs` win over its options, and these over `default_kwargs`.
    """
    if isinstance(kwargs, Mapping):
        kwargs = {**(default_kwargs or {}), **kwargs, **(extra_kwargs or {})}
    return datasets.init_dataset(kwargs, config=RUNNING.config)


class SimpleHDFWriter(HDFWriter):
    """`HDFWriter` under the names of its options that scripts use; `extra_type`: {key: (dim, ndim, dtype)}."""

    def __init__(
        self,
        filename: str | os.PathLike[str],
        dim: int | None,
        labels: Sequence[str] | None = None,
        ndim: int | None = None,
        extra_type: Mapping[str, tuple[int, int, str]] | None = None,
        extend_existing_file: bool = False,
    ) -> None:
        extra = {key: (dim_, ndim_) for key, (dim_, ndim_, *_) in (extra_type or {}).items()}
        super().__init__(
            filename, dim=dim, ndim=ndim, labels=labels, extra=extra, extend_existing_file=extend_existing_file
        )


class Streams:
    """`log`: a stream for each verbosity, `v1` to `v5`, and `error`; all stdout until `init_by_config`."""

    def __init__(self) -> None:
        self._log: Log | None = None

    def init_by_config(self, config: Config) -> None:
        """Opens the targets of the options `log`, `log_verbosity` and `log_format`."""
        self._log = Log.from_config(config)

    def __getattr__(self, name: str) -> Any:
        levels = {"v1": 1, "v2": 2, "v3": 3, "v4": 4, "v5": 5, "error": 1}
        if name not in levels:
            raise AttributeError(name)
        return sys.stdout if self._log is None else _Stream(self._log, levels[name])


class _Stream:
    """What `print(…, file=log.v3)` writes to; a line is a message."""

    def __init__(self, log: Log, level: int) -> None:
        self._log, self._level, self._line = log, level, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log.write(self._level, line)
        return len(text)

    def flush(self) -> None:
        """Lines are written at once; what has no end yet waits for it."""


LOG = Streams()
