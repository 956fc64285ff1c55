"""Random phone sequences of texts, by a lexicon: with silence, repeated states and random pronunciations."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from returnn_lite.config_value import ConfigDict
from returnn_lite.datasets.audio.bliss_corpus import Lemma, read_lexicon
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.reading import read_bytes, read_literal, read_text


@dataclass
class PhoneOptions:
    """The options of `phone_info`; the probabilities say how often silence is added and states are repeated."""

    lexicon_file: str
    phoneme_vocab_file: str | None = None
    allo_num_states: int = 3
    allo_context_len: int = 1
    state_tying_file: str | None = None
    add_silence_beginning: float = 0.1
    add_silence_between_words: float = 0.1
    add_silence_end: float = 0.1
    repetition: float = 0.9
    silence_repetition: float = 0.95
    silence_lemma_orth: str = "[SILENCE]"
    extra_begin_lemma: Mapping[str, Any] | None = None
    add_extra_begin_lemma: float = 1.0
    extra_end_lemma: Mapping[str, Any] | None = None
    add_extra_end_lemma: float = 1.0
    phon_pick_strategy: str = "random"


@dataclass(frozen=True)
class Allophone:
    """A phone with its neighbours (nearest first) and its place in the word."""

    phone: str
    history: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    initial: bool = False
    final: bool = False

    def format(self, state: int) -> str:
        """As state tying files write it: "ph{h+f}@i@f.0"."""
        around = f"{'-'.join(self.history) or '#'}+{'-'.join(self.future) or '#'}"
        return f"{self.phone}{{{around}}}{'@i' * self.initial}{'@f' * self.final}.{state}"


class PhoneSeqs:
    """Draws phone sequences. `labels` are the classes; `seed` begins anew."""

    def __init__(self, info: ConfigDict, path: str):
        known = [f.name for f in fields(PhoneOptions)]
        for name in info:
            if name not in known:
                raise ConfigError(f'{path}["{name}"]', f"unknown option{did_you_mean(str(name), known)}")
        if "lexicon_file" not in info:
            raise ConfigError(path, "needs lexicon_file")
        self.options, self.path = PhoneOptions(**info), path
        lexicon_path = f"{path}: lexicon_file"
        self.phonemes, self.lemmas = read_lexicon(read_bytes(self.options.lexicon_file, lexicon_path), lexicon_path)
        self.has_context = {phoneme.symbol: phoneme.context for phoneme in self.phonemes}
        self.phones = [phoneme.symbol for phoneme in self.phonemes]
        self.silence = self._lemma_of_silence(lexicon_path)
        self._set_labels()
        self.rng = random.Random(0)

    def _lemma_of_silence(self, path: str) -> Lemma:
        orth = self.options.silence_lemma_orth
        if orth not in self.lemmas or not self.lemmas[orth].phons:
            raise ConfigError(path, f'{self.options.lexicon_file} has no lemma "{orth}" (silence_lemma_orth)')
        self.silence_phone = self.lemmas[orth].phons[0]
        return self.lemmas[orth]

    def _set_labels(self) -> None:
        self.tying: dict[str, int] | None = None
        options = self.options
        if options.state_tying_file:
            lines = read_text(options.state_tying_file, f"{self.path}: state_tying_file").splitlines()
            self.tying = {parts[0]: int(parts[1]) for line in lines if len(parts := line.split()) == 2}
            count = max(self.tying.values(), default=-1) + 1
            first = {index: name for name, index in reversed(self.tying.items())}
            self.labels = [first.get(i, str(i)) for i in range(count)]
            self.table = dict(self.tying)
        elif options.phoneme_vocab_file:
            self.table = read_literal(options.phoneme_vocab_file, f"{self.path}: phoneme_vocab_file")
            self.labels = sorted(self.table, key=lambda label: self.table[label])
        else:
            self.labels = list(self.phones)
            self.table = {phone: i for i, phone in enumerate(self.labels)}

    def seed(self, seed: int) -> None:
        """Begins anew."""
        self.rng = random.Random(seed)

    # --- from text to phones ---

    def ids_of(self, text: str) -> list[int]:
        """A random sequence of classes for a text; KeyError for a word that is not in the lexicon."""
        return [self._id(*state) for state in self._states(self._allophones(self._pronunciations(text)))]

    def _pronunciations(self, text: str) -> Iterator[list[str]]:
        """The phones of each lemma, drawn as soon as the lemma is."""
        for lemma in self._lemma_stream(text):
            random_one = self.options.phon_pick_strategy == "random"
            yield (self.rng.choice(lemma.phons) if random_one else lemma.phons[0]).split()

    def _lemma_stream(self, text: str) -> Iterator[Lemma]:
        options = self.options
        yield from self._extra(options.extra_begin_lemma, options.add_extra_begin_lemma)
        if self.rng.random() < options.add_silence_beginning:
            yield self.silence
        words = [lemma for word in text.split() for lemma in self._lemmas_of(word)]
        for i, lemma in enumerate(words):
            yield lemma
            if i + 1 < len(words) and self.rng.random() < options.add_silence_between_words:
                yield self.silence
        if self.rng.random() < options.add_silence_end:
            yield self.silence
        yield from self._extra(options.extra_end_lemma, options.add_extra_end_lemma)

    def _extra(self, lemma: ConfigDict | None, probability: float) -> Iterator[Lemma]:
        if lemma and self.rng.random() < probability:
            phons = [phon["phon"] if isinstance(phon, Mapping) else str(phon) for phon in lemma["phons"]]
            yield Lemma((str(lemma.get("orth", "")),), tuple(phons))

    def _lemmas_of(self, word: str) -> list[Lemma]:
        """The lemma of a word, or those of its parts between slashes or hyphens."""
        if word in self.lemmas:
            return [self.lemmas[word]]
        separator = "/" if "/" in word else "-" if "-" in word else None
        if separator is None:
            raise KeyError(word)
        return [lemma for part in word.split(separator) if part for lemma in self._lemmas_of(part)]

    def _allophones(self, words: Iterator[list[str]]) -> list[Allophone]:
        """All phones in order, with their context inside the whole sequence."""
        phones = [(phone, i == 0, i == len(word) - 1) for word in words for i, phone in enumerate(word)]
        symbols = [phone for phone, _, _ in phones]
        return [
            Allophone(
                phone, self._context(symbols[:i][::-1], phone), self._context(symbols[i + 1 :], phone), first, last
            )
            for i, (phone, first, last) in enumerate(phones)
        ]

    def _context(self, neighbours: list[str], phone: str) -> tuple[str, ...]:
        """The nearest neighbours, up to one that has no context."""
        found: list[str] = []
        for neighbour in neighbours[: self.options.allo_context_len] if self.has_context.get(phone, True) else ():
            if not self.has_context.get(neighbour, True):
                break
            found.append(neighbour)
        return tuple(found)

    def _states(self, allophones: list[Allophone]) -> Iterator[tuple[Allophone, int]]:
        """(allophone, state), states repeated at random."""
        for allophone in allophones:
            silence = allophone.phone == self.silence_phone
            repetition = self.options.silence_repetition if silence else self.options.repetition
            for state in range(1 if silence else self.options.allo_num_states):
                yield allophone, state
                while self.rng.random() < repetition:
                    yield allophone, state

    def _id(self, allophone: Allophone, state: int) -> int:
        return self.table[allophone.format(state) if self.tying is not None else allophone.phone]

    def garbage(self, length: int) -> list[int]:
        """Random phones of this length."""
        found: list[int] = []
        while len(found) < length:
            words = list(self._random_words())
            found += [self._id(*state) for state in self._states(self._allophones(iter(words)))]
        return found[:length]

    def _random_words(self) -> Iterator[list[str]]:
        while True:
            word = [self.rng.choice(self.phones)]
            while self.rng.random() < 0.8:
                word.append(self.rng.choice(self.phones))
            yield word
            if self.rng.random() >= 0.8:
                break
        yield [self.silence_phone]
