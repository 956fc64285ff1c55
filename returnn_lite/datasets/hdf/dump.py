"""Any dataset as an HDF file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.iterate import each_seq
from returnn_lite.errors import ConfigError
from returnn_lite.hdf.growing_file import GrowingFile, write_labels

LEFT_OUT = ("orth", "raw")  # texts, which the file cannot hold


def hdf_from_dataset(
    dataset: Dataset,
    filename: str | os.PathLike[str],
    *,
    epoch: int = 1,
    start_seq: int = 0,
    end_seq: float = math.inf,
    after_seq: Callable[[float], object] = lambda complete: None,
) -> int:
    """Writes the sequences start_seq ≤ i < end_seq of the dataset's epoch, in its order; returns how many these are.

    `after_seq` is called after each with the fraction of the epoch that is done. An empty file may exist already.
    Raises ConfigError if it is not empty, or for data that HDF cannot hold.
    """
    growing = GrowingFile(filename, replace_empty=True)
    try:
        tags, lengths = [], []
        input_key, targets = stored_keys(dataset)
        dataset.init_seq_order(epoch)
        for i in each_seq(dataset, start_seq, end_seq):
            tags.append(dataset.get_tag(i))
            lengths.append(_append(growing, dataset, i, input_key, targets))
            after_seq(dataset.get_complete_frac(i))
        if not tags:
            raise ConfigError(dataset.name, f"epoch {epoch} has no sequences from number {start_seq} on")
        growing.flush()
        _describe(growing, dataset, tags, np.array(lengths, np.int32), targets)
        growing.publish()
    except BaseException:
        growing.check()
        growing.discard()
        raise
    return len(tags)


def stored_keys(dataset: Dataset) -> tuple[str | None, dict[str, str]]:
    """(the key for `inputs`, {name in the file: key} of the targets, sorted by name)."""
    keys = [key for key in dataset.get_data_keys() if key not in LEFT_OUT and not dataset.is_text(key)]
    inputs = [key for key in keys if key not in dataset.get_target_list()]
    input_key = (inputs[0] if len(inputs) == 1 else "data") if inputs else None
    if input_key is not None and input_key not in inputs:
        raise ConfigError(dataset.name, f'one of the inputs {inputs} must be called "data" to be stored as such')
    # "data" means the inputs in the file, so a target of this name gets another.
    names = {"classes" if key == "data" else key: key for key in keys if key != input_key}
    if len(names) < len(keys) - (input_key is not None):
        raise ConfigError(
            dataset.name, 'the target "data" is stored as "classes", but a key of that name exists already'
        )
    return input_key, dict(sorted(names.items()))


def _append(
    growing: GrowingFile, dataset: Dataset, i: int, input_key: str | None, targets: dict[str, str]
) -> list[int]:
    """Adds one sequence; returns its lengths by column."""
    paths = {"inputs": input_key} if input_key is not None else {}
    lengths = []
    for path, key in {**paths, **{f"targets/data/{name}": key for name, key in targets.items()}}.items():
        array = np.atleast_1d(dataset.get_data(i, key))
        growing.append(path, array)
        lengths.append(len(array))
    return lengths


def _describe(
    growing: GrowingFile, dataset: Dataset, tags: list[str], lengths: np.ndarray, targets: dict[str, str]
) -> None:
    file = growing.file
    raw = [tag.encode("utf8") for tag in tags]
    file.create_dataset("seqTags", data=np.array(raw, f"S{max(map(len, raw)) + 1}"))
    file.create_dataset("seqLengths", data=lengths)
    file.attrs["inputPattSize"] = np.int64(dataset.num_inputs or 0)
    for part in ("data", "size", "labels"):  # which are there without targets, too
        file.require_group(f"targets/{part}")
    for name, key in targets.items():
        dim, ndim = int(dataset.num_outputs[key][0]), int(dataset.num_outputs[key][1])
        file.require_group("targets/size").attrs[name] = (dim, max(ndim, 1))
        labels = dataset.labels.get(key) or [f"{name}-class-{i}" for i in range(dim)]
        write_labels(file, f"targets/labels/{name}", labels)
