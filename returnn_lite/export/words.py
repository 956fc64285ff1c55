"""What the classes of an output are called."""

from __future__ import annotations

from typing import Any

from returnn_lite.datasets import Dataset
from returnn_lite.engine.models.model import Model
from returnn_lite.engine.tasks.frame_labels import blank_index, is_ctc
from returnn_lite.engine.tasks.labels import dataset_labels
from returnn_lite.vocab.create import vocab_option


def words(net: Model, layer: str, size: int, dataset: Dataset | None) -> dict[str, Any]:
    """The "labels" of the `size` classes of an output, where they are known, and the number of the "blank" of CTC."""
    found: dict[str, Any] = {}
    if is_ctc(net, layer):
        found["blank"] = blank_index(net, layer, size)
    options = getattr(net.layers.get(layer), "options", None)
    target = getattr(options, "target", None) or net.extern_data.default_target
    known = net.extern_data.specs.get(target) if isinstance(target, str) else None
    if known is None or known.sparse_dim is None or known.sparse_dim.size not in (size, size - 1):
        return found
    vocabulary = vocab_option((net.extern_data.options.get(target) or {}).get("vocab"), target)
    if vocabulary is None and dataset is not None:
        vocabulary = dataset_labels(dataset, target)
    return {**found, "labels": vocabulary.labels[:size]} if vocabulary is not None else found
