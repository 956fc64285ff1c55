"""The texts of a dataset as a Python dict {tag: text}: `dump-dataset-raw-strings.py --dataset … --out FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from returnn_lite.datasets import Dataset
from returnn_lite.datasets.batches.iterate import each_seq
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import dataset_of_options, follow, output_file, stderr_log, text_of_seq, tool

KEYS = ("raw", "orth")


def text_key(dataset: Dataset, key: str | None) -> str:
    """The key of the texts: the one asked for, else "raw" or "orth". Raises ConfigError if there is none."""
    keys = dataset.get_data_keys()
    found = next((name for name in ([key] if key else KEYS) if name in keys), None)
    if found is None:
        raise ConfigError("--key", f"must be a key with texts, but {dataset.name} has {keys} only")
    return found


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="dump-dataset-raw-strings.py", description="Writes the texts of a dataset as a Python dict {tag: text}."
    )
    add = parser.add_argument
    add("--dataset", help="a dataset dict as text, or the name of one in --config (train)")
    add("--config", help="a config file with datasets")
    add("--out", required=True, metavar="FILE", help="the file to write; gzip if it ends in .gz")
    add("--key", help="the key of the texts (raw, else orth)")
    add("--epoch", type=int, default=1, help="the epoch whose order is used (1)")
    add("--verbosity", type=int, default=2, help="of messages about the dataset, 1 to 5 (2)")
    args = parser.parse_args(argv)
    dataset = dataset_of_options(args.config, args.dataset, stderr_log(args.verbosity))
    key, count = text_key(dataset, args.key), 0
    dataset.init_seq_order(args.epoch)
    with output_file(args.out) as file:
        file.write("{\n")
        for i in follow(dataset, each_seq(dataset)):
            file.write(f"{dataset.get_tag(i)!r}: {text_of_seq(dataset, i, key)!r},\n")
            count += 1
        file.write("}\n")
    print(f"{args.out}: {count} texts of {dataset.name}")
