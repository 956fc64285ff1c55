"""Class indices as text, by the labels of a vocabulary."""

import ast
import gzip
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.datasets import Dataset
from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Tensor

NUM_BYTES = 256
MAX_CHARACTERS = 1000  # longer lists of single characters are words of one character


@dataclass(frozen=True)
class Labels:
    """The labels of the classes; `joiner` stands between two of them, None means that the classes are UTF-8 bytes."""

    labels: Sequence[str]
    joiner: str | None = " "

    @classmethod
    def from_list(cls, labels: Sequence[str]) -> "Labels":
        """Bytes, single characters or words, by what the labels look like."""
        if len(labels) == NUM_BYTES and all(label == chr(i) for i, label in enumerate(labels)):
            return cls(labels, None)
        characters = len(labels) < MAX_CHARACTERS and all(len(label) == 1 for label in labels)
        return cls(labels, "" if characters else " ")

    def text(self, ids: Sequence[int]) -> str:
        """The text of a sequence of class indices."""
        if self.joiner is None:
            return bytes(ids).decode("utf-8", errors="replace")
        try:
            return self.joiner.join([self.labels[i] for i in ids])
        except IndexError:
            text = f"there are {len(self.labels)} labels, but a class index is {max(ids)}"
            raise ConfigError("search_output_layer", f"Unable to serialize: {text}") from None


def labels_of_output(net: Any, layer: str, output: Tensor, dataset: Dataset) -> Labels | None:
    """The labels of a layer's classes: by the data key with the same classes, by its target, or None."""
    classes = output.spec.sparse_dim
    if classes is None:
        return None
    extern = net.extern_data
    same = sorted(key for key, spec in extern.specs.items() if spec.sparse_dim == classes)
    target = getattr(net.layers[layer].options, "target", None) if layer in net.layers else None
    own = [target] if isinstance(target, str) else list(target or [])
    candidates = [key for key in (*same, *own, extern.default_target) if key in extern.specs]
    for key in candidates:
        found = vocab_labels((extern.options.get(key) or {}).get("vocab"), key) or dataset_labels(dataset, key)
        if found and (classes.size is None or len(found.labels) >= classes.size):
            return found
    return Labels((), None) if classes.size == NUM_BYTES else None


def dataset_labels(dataset: Dataset, key: str) -> Labels | None:
    """The labels which the dataset has for a data key."""
    labels = dataset.labels.get(key)
    return Labels.from_list(list(labels)) if labels else None


def vocab_labels(vocab: Any, key: str) -> Labels | None:
    """The labels of a `vocab` option: a dict with `labels` or `vocab_file`, or an object with `labels`."""
    if vocab is None:
        return None
    if hasattr(vocab, "labels"):
        return Labels.from_list(list(vocab.labels))
    path = f'extern_data["{key}"]["vocab"]'
    if not isinstance(vocab, Mapping):
        raise ConfigError(path, f"must be a dict or a vocabulary, but is {vocab!r} instead")
    if vocab.get("class") == "Utf8ByteTargets":
        return Labels([chr(i) for i in range(NUM_BYTES)], None)
    labels = vocab.get("labels")
    labels = labels() if callable(labels) else labels
    if labels is None:
        if "vocab_file" not in vocab:
            raise ConfigError(path, f"must have `labels` or `vocab_file`, but has {sorted(vocab)} only")
        labels = read_vocab_file(vocab["vocab_file"], path)
    return Labels(labels, "" if vocab.get("class") == "CharacterTargets" else " ")


def read_vocab_file(filename: str, path: str) -> list[str]:
    """The labels of a vocabulary file: pickled or written dict label -> index, or one label a line; .gz too."""
    try:
        with (gzip.open if filename.endswith(".gz") else open)(filename, "rb") as file:
            content = file.read()
    except OSError as exc:
        raise ConfigError(path, f"vocabulary file {filename!r} cannot be read: {exc.strerror}") from None
    if filename.removesuffix(".gz").endswith(".pkl"):
        table = pickle.loads(content)
    else:
        text = content.decode("utf-8")
        if not text.lstrip().startswith("{"):
            return text.splitlines()
        table = ast.literal_eval(text)
    labels = {index: label for label, index in sorted(table.items())}  # of several labels of an index the last counts
    if sorted(labels) != list(range(len(labels))):
        raise ConfigError(path, f"vocabulary file {filename!r} must use all indices from 0 on, but does not")
    return [labels[i] for i in range(len(labels))]
