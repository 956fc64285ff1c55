"""Importing this file makes all dataset classes known under their names in configs."""

from returnn_lite.datasets import (
    anything,
    concat_seqs,
    dummy,
    epochs,
    generated,
    generated_tasks,
    hdf,
    joined,
    map_wrapper,
    meta,
    numpy_dump,
    postprocessing,
    static,
)

__all__ = [
    "anything",
    "concat_seqs",
    "dummy",
    "epochs",
    "generated",
    "generated_tasks",
    "hdf",
    "joined",
    "map_wrapper",
    "meta",
    "numpy_dump",
    "postprocessing",
    "static",
]
