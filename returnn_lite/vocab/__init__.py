"""Texts as class indices and back: words, characters, bytes, pieces of words."""

from returnn_lite.vocab.base import CharacterTargets, Utf8ByteTargets, Vocabulary
from returnn_lite.vocab.bpe import BytePairEncoding
from returnn_lite.vocab.create import VOCABULARIES, create_vocab, vocab_of_labels
from returnn_lite.vocab.pieces import SentencePieces
from returnn_lite.vocab.sampling_bpe import SamplingBytePairEncoding

__all__ = [
    "VOCABULARIES",
    "BytePairEncoding",
    "CharacterTargets",
    "SamplingBytePairEncoding",
    "SentencePieces",
    "Utf8ByteTargets",
    "Vocabulary",
    "create_vocab",
    "vocab_of_labels",
]
