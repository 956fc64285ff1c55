"""Reading of Bliss corpora and lexica: XML files of the RWTH tools."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

from returnn_lite.errors import ConfigError

_UTF8 = re.compile(rb"""^\s*(<\?xml[^>]*\bencoding=["'])utf_?8(?=["'])""", re.IGNORECASE)


@dataclass(frozen=True)
class Segment:
    """One segment of a recording: times in seconds (`end` may be infinite), and its text with single spaces."""

    tag: str
    audio: str
    start: float
    end: float
    text: str
    speaker: str | None = None


def is_bliss(content: bytes) -> bool:
    """Whether a file's content is XML with the root element `corpus`."""
    head = content[:4096].lstrip()
    return head.startswith(b"<") and b"<corpus" in head


def _readable(content: bytes) -> bytes:
    """With the standard's name for the encoding UTF-8, for which some files have "utf8"."""
    return _UTF8.sub(rb"\1UTF-8", content, count=1)


def segments(content: bytes, path: str) -> Iterator[Segment]:
    """The segments of a corpus, in order. Raises ConfigError for damaged XML."""
    names: list[str] = []
    speakers = [""]  # a speaker is that of the element he stands in, and of all in it
    audio = ""
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(_readable(content)), events=("start", "end")):
            if event == "start" and element.tag in ("corpus", "subcorpus", "recording", "segment"):
                number = element.get("name") or str(len(names))
                names.append(number)
                speakers.append(speakers[-1])
                audio = element.get("audio", audio) if element.tag == "recording" else audio
            if event == "start":
                continue
            if element.tag == "speaker":
                speakers[-1] = element.get("name") or ""
            if element.tag == "segment":
                yield _segment(element, "/".join(names), audio, speakers[-1])
            if element.tag in ("corpus", "subcorpus", "recording", "segment"):
                names.pop()
                speakers.pop()
                element.clear()
    except (ElementTree.ParseError, ValueError) as exc:
        raise ConfigError(path, f"is not a Bliss corpus: {exc}") from None


def _segment(element: ElementTree.Element, tag: str, audio: str, speaker: str) -> Segment:
    text = " ".join((element.findtext("orth") or "").split())
    start, end = float(element.get("start", 0)), float(element.get("end", "inf"))
    return Segment(tag, audio, start, end, text, speaker or None)


@dataclass(frozen=True)
class Phoneme:
    """A phoneme; `context` says whether it varies with its neighbours."""

    symbol: str
    context: bool


@dataclass(frozen=True)
class Lemma:
    """A word with its pronunciations (each "P H O N")."""

    orths: tuple[str, ...]
    phons: tuple[str, ...]


def read_lexicon(content: bytes, path: str) -> tuple[list[Phoneme], dict[str, Lemma]]:
    """(phonemes in order, {orth: lemma}) of a lexicon. Raises ConfigError for damaged XML."""
    try:
        root = ElementTree.fromstring(_readable(content))
    except ElementTree.ParseError as exc:
        raise ConfigError(path, f"is not a lexicon: {exc}") from None
    phonemes = []
    for node in root.iterfind("phoneme-inventory/phoneme"):
        symbol, variation = (node.findtext("symbol") or "").strip(), (node.findtext("variation") or "context").strip()
        phonemes.append(Phoneme(symbol, variation != "none"))
    lemmas: dict[str, Lemma] = {}
    for node in root.iterfind("lemma"):
        orths = tuple((orth.text or "").strip() for orth in node.iterfind("orth"))
        phons = tuple(" ".join((phon.text or "").split()) for phon in node.iterfind("phon"))
        for orth in orths:
            lemmas.setdefault(orth, Lemma(orths, phons))
    return phonemes, lemmas
