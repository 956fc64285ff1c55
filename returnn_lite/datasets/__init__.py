"""Datasets, the order of their sequences, and mini-batches of them."""

from returnn_lite.datasets import catalog  # all classes register themselves
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import BatchingOptions
from returnn_lite.datasets.batches.loader import Batch, Loader
from returnn_lite.datasets.factory import DatasetDefaults, dataset_defaults, init_dataset
from returnn_lite.datasets.options import BaseOptions, DataError

__all__ = [
    "BaseOptions",
    "Batch",
    "BatchingOptions",
    "DataError",
    "Dataset",
    "DatasetDefaults",
    "Loader",
    "catalog",
    "dataset_defaults",
    "init_dataset",
]
