"""Whether the processes of a training see the same: data on each machine, and the network that is built for them."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress

import torch

from returnn_lite.datasets import Dataset
from returnn_lite.errors import ConfigError

TAGS = 16  # tags of a dataset that are compared


def data_fingerprint(dataset: Dataset) -> dict[str, object]:
    """What is cheap to know of a dataset and differs for other data: keys and sizes, number of sequences, some tags."""
    found: dict[str, object] = {"data keys": repr(dict(dataset.num_outputs or {}))}
    with suppress(NotImplementedError, ConfigError):
        total = dataset.get_total_num_seqs()
        found["number of sequences"] = total
        if not math.isinf(total) and total:
            chosen = sorted({round(i * (total - 1) / (TAGS - 1)) for i in range(TAGS)})
            found["tags of sequences"] = ", ".join(dataset.corpus_tag(i) for i in chosen)
    return found


def network_fingerprint(params: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """The parameters' number, and a hash of their names, shapes and types."""
    shapes = [(name, tuple(param.shape), str(param.dtype), param.requires_grad) for name, param in params.items()]
    digest = hashlib.sha256(repr(sorted(shapes)).encode()).hexdigest()
    return {"number of parameters": len(shapes), "hash of names and shapes of parameters": digest[:12]}
