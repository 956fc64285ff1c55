"""Vocabularies from the options in configs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.vocab.base import NUM_BYTES, CharacterTargets, Utf8ByteTargets, Vocabulary
from returnn_lite.vocab.bpe import BytePairEncoding
from returnn_lite.vocab.hf_tokenizer import HuggingFaceTokenizer
from returnn_lite.vocab.pieces import SentencePieces
from returnn_lite.vocab.sampling_bpe import SamplingBytePairEncoding

MAX_CHARACTERS = 1000  # longer lists of single characters are words of one character

VOCABULARIES: dict[str, type[Vocabulary]] = {
    "Vocabulary": Vocabulary,
    "BytePairEncoding": BytePairEncoding,
    "SamplingBytePairEncoding": SamplingBytePairEncoding,
    "SamplingBytePairEncoder": SamplingBytePairEncoding,
    "CharacterTargets": CharacterTargets,
    "Utf8ByteTargets": Utf8ByteTargets,
    "SentencePieces": SentencePieces,
    "HuggingFaceTokenizer": HuggingFaceTokenizer,
}


def create_vocab(value: ConfigValue, path: str = "vocab") -> Vocabulary:
    """A vocabulary from its options (`class`, else by `bpe_file`), or the vocabulary itself. Raises ConfigError."""
    if isinstance(value, Vocabulary):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"must be a dict or a vocabulary, but is {value!r} instead")
    options = dict(value)
    name = options.pop("class", "BytePairEncoding" if options.get("bpe_file") else "Vocabulary")
    if name not in VOCABULARIES:
        known = f"; known: {', '.join(VOCABULARIES)}"
        raise ConfigError(
            f'{path}["class"]', f'unknown vocabulary "{name}"{did_you_mean(str(name), VOCABULARIES) or known}'
        )
    cls = VOCABULARIES[name]
    known_options = option_names(cls)
    for option in options:
        if option not in known_options:
            hint = f"{did_you_mean(str(option), known_options)}; its options are: {', '.join(known_options)}"
            raise ConfigError(f'{path}["{option}"]', f"unknown option of {name}{hint}")
    missing = [name for name, needed in known_options.items() if needed and name not in options]
    if missing:
        raise ConfigError(path, f"{name} needs the option {', '.join(missing)}")
    return cls(**options, path=path)


def option_names(cls: type[Vocabulary]) -> dict[str, bool]:
    """The options of a class, and whether they are needed; those of its base where it takes any."""
    names: dict[str, bool] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in parameters:
            if p.kind is p.KEYWORD_ONLY and p.name != "path":
                names.setdefault(p.name, p.default is p.empty)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def vocab_of_labels(labels: Sequence[str], path: str = "labels") -> Vocabulary:
    """Bytes, single characters or words, by what the labels look like."""
    if len(labels) == NUM_BYTES and all(label == chr(i) for i, label in enumerate(labels)):
        return Utf8ByteTargets(path=path)
    characters = len(labels) < MAX_CHARACTERS and all(len(label) == 1 for label in labels)
    cls = CharacterTargets if characters else Vocabulary
    return cls(labels=labels, unknown_label=None, path=path)


def vocab_option(vocab: ConfigValue, key: str) -> Vocabulary | None:
    """The option `vocab` of a data key: a dict, a vocabulary, or an object with `labels`."""
    path = f'extern_data["{key}"]["vocab"]'
    if vocab is None or isinstance(vocab, Vocabulary):
        return vocab
    if hasattr(vocab, "labels"):
        return vocab_of_labels(list(vocab.labels), path)
    by_file = (None, "Vocabulary", "CharacterTargets", "BytePairEncoding")
    if isinstance(vocab, Mapping) and vocab.get("class") in by_file:
        vocab = {"unknown_label": None, **vocab}  # only needed to read texts, which is not done here
    return create_vocab(vocab, path)
