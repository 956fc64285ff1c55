"""The vocabulary of a layer's classes."""

from returnn_lite.datasets import Dataset
from returnn_lite.engine.models.model import Model
from returnn_lite.tensor import Tensor
from returnn_lite.vocab import Utf8ByteTargets, Vocabulary, vocab_of_labels
from returnn_lite.vocab.base import NUM_BYTES
from returnn_lite.vocab.create import vocab_option


def labels_of_output(net: Model, layer: str, output: Tensor, dataset: Dataset | None = None) -> Vocabulary | None:
    """The vocabulary of a layer's classes: by the data key with the same classes, by its target, or None."""
    classes = output.spec.sparse_dim
    if classes is None:
        return None
    extern = net.extern_data
    same = sorted(key for key, spec in extern.specs.items() if spec.sparse_dim == classes)
    target = getattr(net.layers[layer].options, "target", None) if layer in net.layers else None
    own = [target] if isinstance(target, str) else list(target or [])
    candidates = [key for key in (*same, *own, extern.default_target) if key in extern.specs]
    for key in candidates:
        found = vocab_option((extern.options.get(key) or {}).get("vocab"), key)
        if found is None and dataset is not None:
            found = dataset_labels(dataset, key)
        if found and (classes.size is None or found.num_labels >= classes.size):
            return found
    return Utf8ByteTargets() if classes.size == NUM_BYTES else None


def dataset_labels(dataset: Dataset, key: str) -> Vocabulary | None:
    """The labels which the dataset has for a data key."""
    labels = dataset.labels.get(key)
    return vocab_of_labels(list(labels), f'{dataset.name}: labels of "{key}"') if labels else None


def numbered_labels(output: Tensor) -> Vocabulary:
    """The classes' own numbers as labels, for classes without any vocabulary."""
    return Vocabulary(labels=[str(i) for i in range(output.spec.dim or 0)], unknown_label=None)
