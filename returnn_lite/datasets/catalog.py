"""Importing this file makes all dataset classes known under their names in configs."""

from returnn_lite.datasets.audio import librispeech, ogg_zip, raw_wav, timit
from returnn_lite.datasets.combined import (
    concat_seqs,
    distribute_files,
    epochs,
    joined,
    map_wrapper,
    meta,
    multi_proc,
    postprocessing,
)
from returnn_lite.datasets.hdf import hdf, nextgen, stereo
from returnn_lite.datasets.streaming import iterable, tar
from returnn_lite.datasets.synthetic import anything, dummy, generated, generated_tasks
from returnn_lite.datasets.tables import huggingface, numpy_dump, static
from returnn_lite.datasets.text import enwik8, lm, text_dict, translation

__all__ = [
    "anything",
    "concat_seqs",
    "distribute_files",
    "dummy",
    "enwik8",
    "epochs",
    "generated",
    "generated_tasks",
    "hdf",
    "huggingface",
    "iterable",
    "joined",
    "librispeech",
    "lm",
    "map_wrapper",
    "meta",
    "multi_proc",
    "nextgen",
    "numpy_dump",
    "ogg_zip",
    "postprocessing",
    "raw_wav",
    "static",
    "stereo",
    "tar",
    "text_dict",
    "timit",
    "translation",
]
