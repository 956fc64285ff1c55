"""Sequence orders, mini-batches and datasets by the public API, as the conformance runner asks for them."""

import math
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from returnn_lite.datasets import BatchingOptions, init_dataset
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.combined.map_wrapper import FromList
from returnn_lite.datasets.order.ordering import OrderOptions
from returnn_lite.datasets.order.ordering import seq_order as order_of_epoch

MANY_LABELS = 256  # longer lists were not recorded
ORDER_OPTIONS = [f.name for f in fields(OrderOptions) if f.name != "seq_list_filter"]


def seq_order(case: dict[str, Any]) -> list[int]:
    """Corpus indices of the case's epoch."""
    wanted, lens = case.get("seq_list_filter"), case.get("seq_lens")
    options = OrderOptions(
        **{name: case[name] for name in ORDER_OPTIONS},
        seq_list_filter=None if wanted is None else frozenset(wanted),
    )
    lengths = None if lens is None else np.array(lens)
    return order_of_epoch(options, case["epoch"], case["num_seqs"], lambda: lengths, lambda: case["seq_tags"]).tolist()


def batching(case: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The batches of the case's epoch, as lists of {seq_idx, start, end, batch_slice}."""
    config, lens = case["config"], case["seq_lens"]
    seqs = [{key: np.zeros(n) for key, n in zip(lens, row, strict=True)} for row in zip(*lens.values(), strict=True)]
    dataset = init_dataset({"class": "StaticDataset", "data": seqs, **config["dataset"]})
    dataset.init_seq_order(case["epoch"])
    used = config["used_data_keys"]
    options = BatchingOptions(
        **config["generate_batches"],
        used_data_keys=None if used is None else frozenset(used),
        recurrent_net=config["recurrent_net"],
    )
    found = []
    for batch in epoch_batches(dataset, options):
        s = batch.slices
        rows = zip(s.seq_idx.tolist(), s.start.tolist(), s.end.tolist(), batch.row.tolist(), strict=True)
        found.append([_entry(s.keys, *row) for row in rows])
    return found


def _entry(keys: tuple[str, ...], seq_idx: int, start: list[int], end: list[int], row: int) -> dict[str, Any]:
    bounds = {"start": dict(zip(keys, start, strict=True)), "end": dict(zip(keys, end, strict=True))}
    return {"seq_idx": seq_idx, **bounds, "batch_slice": row}


def dataset(options: dict[str, Any], calls: list[dict[str, Any]], case: dict[str, Any]) -> dict[str, Any]:
    """Description of the dataset, and the sequences of the epoch that each call starts."""
    data = init_dataset(_with_noted(options, case.get("note", "")))
    if case.get("error") and not calls:
        _provoke(data, unknown_tag="requested seqs" in case["error"]["message"])
    keys = data.get_data_keys()
    return {
        "data_keys": keys,
        "num_outputs": data.num_outputs,
        "get_data_dtype": {key: data.get_data_dtype(key) for key in keys},
        "is_data_sparse": {key: _answer(data.is_data_sparse, key) for key in keys},
        "labels": {key: labels for key, labels in data.labels.items() if len(labels) < MANY_LABELS},
        "calls": [_epoch(data, call, recorded) for call, recorded in zip(calls, case["calls"], strict=True)],
    }


def _answer(question: Any, key: str) -> Any:
    """The answer; a failed look-up as the recordings have it."""
    try:
        return question(key)
    except KeyError:
        return "error: KeyError"


def _epoch(data: Any, call: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    data.init_seq_order(**call)
    tags, seqs = [], []
    for i in range(recorded["num_seqs_recorded"]):
        data.load_seqs(i, i + 1)
        tags.append(data.get_tag(i))
        seqs.append({key: data.get_data(i, key) for key in data.get_data_keys()})
    return {"num_seqs": None if math.isinf(data.num_seqs) else data.num_seqs, "tags": tags, "data": seqs}


def _provoke(data: Any, unknown_tag: bool) -> None:
    """Where an error is wanted and the calls that led to it were not recorded: reads an epoch, then a list of tags."""
    for seq_list in (None, True):
        data.init_seq_order(epoch=1, seq_list=seq_list and [*_tags(data), *["unknown"] * unknown_tag])
        i = 0
        while data.is_less_than_num_seqs(i):
            data.load_seqs(i, i + 1)
            [data.get_data(i, key) for key in data.get_data_keys()]
            i += 1


def _tags(data: Any) -> list[str]:
    """All tags, or the first one of the epoch where they cannot be listed."""
    try:
        return list(data.get_all_tags())
    except NotImplementedError:
        return [data.get_tag(0)]


def _with_noted(options: dict[str, Any], note: str) -> dict[str, Any]:
    """With the data and the functions that the note describes."""
    return {key: FUNCTIONS.get(str(value), value) for key, value in _with_stored_data(options, note).items()}


def _hdf_of_epoch(epoch: int, **_: Any) -> dict[str, Any]:
    name, ordering = ("h1.hdf", "random") if epoch % 2 else ("h2.hdf", "default")
    return {"class": "HDFDataset", "files": [str(_case_folder() / "files" / name)], "seq_ordering": ordering}


def _from_list() -> FromList:
    with np.load(_case_folder() / "files" / "fromlist.npz") as npz:
        seqs: dict[int, dict[str, np.ndarray]] = {}
        for name in npz.files:
            index, key = name.split("_", 1)
            seqs.setdefault(int(index), {})[key] = npz[name]
    types = {"data": {"dim": 2, "shape": (None, 2)}, "classes": {"dim": 3, "sparse": True, "shape": (None,)}}
    return FromList([seqs[i] for i in sorted(seqs)], "data", types)


FUNCTIONS = {"<function get_ds>": _hdf_of_epoch, "<function mk>": _from_list}  # by what stands in their place


def _with_stored_data(options: dict[str, Any], note: str) -> dict[str, Any]:
    """Where the note says that "data" are in an npz file, these: their texts in the options are rounded."""
    stored = re.search(r'"data" = list of (\d+) seqs, from (files/\S+\.npz) keys <idx>_<key>', note)
    if not stored:
        return options
    with np.load(_case_folder() / stored[2]) as npz:
        seqs: list[dict[str, np.ndarray]] = [{} for _ in range(int(stored[1]))]
        for name in npz.files:
            index, key = name.split("_", 1)
            seqs[int(index)][key] = npz[name]
    return {**options, "data": seqs}


def _case_folder() -> Path:
    """The dataset cases of the runner that is running."""
    if "--cases" in sys.argv:
        return Path(sys.argv[sys.argv.index("--cases") + 1]) / "datasets"
    return Path(sys.argv[0]).resolve().parent / "cases" / "datasets"
