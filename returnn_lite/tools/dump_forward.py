"""The outputs of layers for the sequences of a dataset: `dump-forward.py my.config --layers encoder output`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from returnn_lite.datasets import Dataset
from returnn_lite.engine.tasks.forward import entries
from returnn_lite.errors import ConfigError
from returnn_lite.files import write_atomically
from returnn_lite.hdf.writer import HDFWriter
from returnn_lite.tools.common import dataset_of_config, stderr_log, tool
from returnn_lite.tools.networks import Arrays, SeqOutputs, config_of_files, outputs

LIMIT = 200  # numbers that are printed of an array


def add_network_options(parser: argparse.ArgumentParser, *, layers: str) -> None:
    """The options that say which network, which data, and which layers."""
    add = parser.add_argument
    add("config", nargs="+", help="config files; later ones win")
    add("--layers", nargs="+", required=True, metavar="LAYER", help=layers)
    add("--dataset", default="dev", help="the name of a dataset in the config, or a dataset dict as text (dev)")
    add("--load", metavar="MODEL", help="a model file (the last epoch's of the config's `model`)")
    add("--epoch", type=int, help="the epoch whose model is taken")
    add("--batch_size", type=int, help="frames of a batch (forward_batch_size, or batch_size, of the config)")
    add("--device", help="cpu, cuda, … (that of the config)")
    add("--startseq", type=int, default=0, help="the first sequence (0)")
    add("--endseq", type=int, default=-1, help="the last sequence; -1: of all (-1)")
    add("--verbosity", type=int, default=0, help="of messages about network and data, 0 to 5 (0)")


def network_outputs(args: argparse.Namespace, arrays: Arrays = entries) -> tuple[Dataset, Iterator[SeqOutputs]]:
    """The dataset, and the outputs that these options mean, as `arrays` gives them."""
    log = stderr_log(args.verbosity)
    config = config_of_files(
        args.config, load=args.load, load_epoch=args.epoch, device=args.device, forward_batch_size=args.batch_size
    )
    dataset = dataset_of_config(config, args.dataset, log)
    last = None if args.endseq < 0 else args.endseq
    return dataset, outputs(config, dataset, args.layers, log, first=args.startseq, last=last, arrays=arrays)


def show(found: Iterator[SeqOutputs], *, shapes_only: bool) -> None:
    """Prints tag, layer, shape, and the array, long ones shortened."""
    for seq in found:
        for name, array in seq.layers.items():
            print(f"{seq.tag} {name} {array.shape}")
            if not shapes_only:
                print(np.array2string(array, threshold=LIMIT))


def write_npz(filename: str, found: Iterator[SeqOutputs]) -> int:
    """One array for each sequence and layer, called "<tag>/<layer>"; how many sequences there were."""
    rows = list(found)
    arrays = {f"{seq.tag}/{name}": array for seq in rows for name, array in seq.layers.items()}
    write_atomically(filename, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return len(rows)


def write_hdf(filename: str, found: Iterator[SeqOutputs], dataset: Dataset) -> int:
    """An HDF file for `HDFDataset`: the first layer as data, the others as streams; how many sequences there were."""
    count, writer = 0, None
    frames: dict[str, tuple[int, ...]] = {}
    try:
        for seq in found:
            first, *others = seq.layers
            for name, values in seq.layers.items():
                if frames.setdefault(name, values.shape[1:]) != values.shape[1:]:
                    text = f"the frames of {name} have the shapes {frames[name]} and {values.shape[1:]}: write .npz"
                    raise ConfigError("--out", text)
            array = seq.layers[first]
            if writer is None:
                features = array.ndim > 1
                writer = HDFWriter(filename, dim=array.shape[-1] if features else None, ndim=2 if features else 1)
            writer.insert(array, seq.tag, {name.replace("/", "."): seq.layers[name] for name in others})
            count += 1
        if writer is None:
            raise ConfigError("--dataset", f"{dataset.name} has no sequences")
        writer.close()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    return count


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="dump-forward.py",
        description="Prints the outputs of layers for the sequences of a dataset, or writes them to a file.",
    )
    add_network_options(parser, layers='layers of the network, those in a loop as "output/energy"; outputs of a model')
    parser.add_argument("--shapes", action="store_true", help="prints the shapes only")
    parser.add_argument(
        "--out", metavar="FILE", help="writes .npz (<tag>/<layer>), or .hdf with the first layer as data"
    )
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith((".npz", ".hdf")):
        raise ConfigError("--out", f"must end in .npz or .hdf, but is {args.out} instead")
    dataset, found = network_outputs(args)
    if not args.out:
        show(found, shapes_only=args.shapes)
        return
    count = write_npz(args.out, found) if args.out.endswith(".npz") else write_hdf(args.out, found, dataset)
    print(f"{args.out}: {', '.join(args.layers)} of {count} sequences")
