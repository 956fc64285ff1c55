"""Sequence orders, mini-batches and datasets by the public API, as the conformance runner asks for them."""

import ast
import math
from typing import Any

import numpy as np

from returnn_lite.datasets import BatchingOptions, init_dataset
from returnn_lite.datasets.epoch_batches import epoch_batches
from returnn_lite.datasets.ordering import OrderOptions, seq_order as order_of_epoch


def seq_order(case: dict[str, Any]) -> list[int]:
    """Corpus indices of the case's epoch."""
    names = "seq_ordering partition_epoch repeat_epoch random_seed_offset fixed_random_seed unique_seq_tags num_shards shard_index"
    wanted, lens = case.get("seq_list_filter"), case.get("seq_lens")
    options = OrderOptions(
        **{name: case[name] for name in names.split()},
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
        found.append([
            {"seq_idx": i, "start": dict(zip(s.keys, a, strict=True)), "end": dict(zip(s.keys, e, strict=True)), "batch_slice": row}
            for i, a, e, row in rows
        ])  # fmt: skip
    return found


def dataset(options: dict[str, Any], calls: list[dict[str, Any]], case: dict[str, Any]) -> dict[str, Any]:
    """Description of the dataset, and the sequences of the epoch that each call starts."""
    data = init_dataset(_with_arrays(options))
    keys = data.get_data_keys()
    return {
        "data_keys": keys,
        "num_outputs": data.num_outputs,
        "get_data_dtype": {key: data.get_data_dtype(key) for key in keys},
        "is_data_sparse": {key: data.is_data_sparse(key) for key in keys},
        "labels": data.labels,
        "calls": [_epoch(data, call, recorded) for call, recorded in zip(calls, case["calls"], strict=True)],
    }


def _epoch(data: Any, call: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    data.init_seq_order(**call)
    tags, seqs = [], []
    for i in range(recorded["num_seqs_recorded"]):
        data.load_seqs(i, i + 1)
        tags.append(data.get_tag(i))
        seqs.append({key: data.get_data(i, key) for key in data.get_data_keys()})
    return {"num_seqs": None if math.isinf(data.num_seqs) else data.num_seqs, "tags": tags, "data": seqs}


def _with_arrays(value: Any) -> Any:
    """Options with arrays for the texts "array([...], dtype=...)" that stand for them."""
    if isinstance(value, dict):
        return {key: _with_arrays(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v) for v in value]
    if isinstance(value, str) and value.startswith("array("):
        call = ast.parse(value, mode="eval").body
        dtype = next((ast.unparse(k.value) for k in call.keywords if k.arg == "dtype"), None)
        return np.array(ast.literal_eval(call.args[0]), dtype)
    return value
