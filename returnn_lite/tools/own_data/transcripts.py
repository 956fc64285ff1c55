"""Which audio file says what: tables (TSV, CSV), JSON lines, Kaldi folders, Hugging Face data sets."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.reading import read_bytes

FILE = ("file", "path", "audio", "wav", "filename", "file_name", "audio_filepath", "audio_path")
TEXT = ("text", "transcript", "transcription", "sentence", "normalized_text")
NAME, SPLIT = ("id", "utt_id", "seq_name"), ("split", "subset")
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test", "eval": "test"}
FORMS = "a table (.tsv, .csv), JSON lines (.jsonl), a Kaldi folder, or a Hugging Face data set (folder or .parquet)"


@dataclass(frozen=True)
class Utterance:
    """One sequence. `place`: where it is said, for errors; `read`: gives the content of the audio file `file`; `start`,
    `end`: the part of it in seconds, None for all; `split`: train, dev, test, or "" where that is not said.
    """

    tag: str
    text: str
    place: str
    file: str
    read: Callable[[], bytes]
    start: float = 0.0
    end: float | None = None
    split: str = ""


Found = Iterator[Utterance | ConfigError]  # what is wrong with one entry stands in its place


def read_transcripts(path: str, folder: str) -> list[Utterance | ConfigError]:
    """The utterances of a list; files are looked for in `folder`. ConfigError for a list that cannot be read."""
    if not os.path.exists(path):
        beside = os.listdir(os.path.dirname(path) or ".") if os.path.isdir(os.path.dirname(path) or ".") else []
        raise ConfigError(path, f"no such file or folder{did_you_mean(os.path.basename(path), beside)}")
    found = list(_unique(_reader(path)(path, folder)))
    if not found:
        raise ConfigError(path, "holds no utterances")
    return found


def _reader(path: str) -> Callable[[str, str], Found]:
    if os.path.isdir(path):
        hugging_face = {"dataset_info.json", "dataset_dict.json", "state.json"}
        return _hugging_face if hugging_face & set(os.listdir(path)) else _kaldi
    readers = {".tsv": _table, ".csv": _table, ".jsonl": _json_lines, ".json": _json_lines, ".parquet": _hugging_face}
    suffix = os.path.splitext(path.removesuffix(".gz"))[1].lower()
    if suffix not in readers:
        raise ConfigError(path, f"must be {FORMS}, but ends in {suffix or 'nothing'!r}")
    return readers[suffix]


def _unique(found: Found) -> Found:
    """The same; a second utterance of one name is an error."""
    first: dict[str, str] = {}
    for one in found:
        if isinstance(one, Utterance) and first.setdefault(one.tag, one.place) != one.place:
            yield ConfigError(one.place, f'the name "{one.tag}" is used already in {first[one.tag]}')
        else:
            yield one


def text_lines(path: str) -> list[str]:
    """The lines of a text file in UTF-8; ConfigError with the line that is not."""
    content = read_bytes(path, path)
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            f"{path}:{line}", f"must be UTF-8 text, but has the byte 0x{content[exc.start]:02x}"
        ) from None


# --- files ------------------------------------------------------------------------------------------------------------


def _file(name: str, folder: str, place: str) -> str:
    """The audio file of this name, with or without suffix; ConfigError if there is none."""
    candidates = [os.path.join(folder, name + suffix) for suffix in ("", *SUFFIXES)]
    found = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if found is None:
        near = os.path.dirname(os.path.join(folder, name))
        known = os.listdir(near) if os.path.isdir(near) else []
        raise ConfigError(
            place, f"audio file {candidates[0]} does not exist{did_you_mean(os.path.basename(name), known)}"
        )
    return found


def _utterance(row: Mapping[str, Any], folder: str, place: str, **more: Any) -> Utterance | ConfigError:
    """From values by the names of columns."""

    def value(names: Sequence[str]) -> str:
        return str(next((row[name] for name in names if row.get(name) is not None), "")).strip()

    try:
        name, text, split = value(FILE), " ".join(value(TEXT).split()), value(SPLIT).lower()
        if not name:
            raise ConfigError(place, "the name of the audio file is empty")
        if not text:
            raise ConfigError(place, f"the text of {name} is empty")
        if split and split not in SPLITS:
            raise ConfigError(place, f'the split must be one of {", ".join(SPLITS)}, but is "{split}"')
        file = _file(name, folder, place)
        tag = value(NAME) or os.path.splitext(name)[0].lstrip("./")
        return Utterance(tag, text, place, file, lambda: _content(file), split=SPLITS.get(split, ""), **more)
    except ConfigError as exc:
        return exc


def _content(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()


# --- forms ------------------------------------------------------------------------------------------------------------


def _table(path: str, folder: str) -> Found:
    """Columns by the names in the first line, or file and text without such a line."""
    lines = text_lines(path)
    tab = path.removesuffix(".gz").lower().endswith(".tsv")
    delimiter = "\t" if tab else ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL)
    header: list[str] = []
    for row in rows:
        place = f"{path}:{rows.line_num}"
        names = [cell.strip().lower() for cell in row]
        if not header:
            header, is_header = _header(names, path)
            if is_header:
                continue
        if not any(names):
            continue
        if len(row) < 2 or len(row) != len(header):
            yield ConfigError(place, f"must have {len(header)} columns ({', '.join(header)}), but has {len(row)}")
            continue
        yield _utterance(dict(zip(header, row, strict=True)), folder, place)


def _header(names: list[str], path: str) -> tuple[list[str], bool]:
    """The names of the columns, and whether the line holds them; ConfigError if one that is needed is missing."""
    known = {kind: [name for name in names if name in kind] for kind in (FILE, TEXT)}
    if not any(known.values()):
        return ["file", "text"], False
    for kind, found in known.items():
        if not found:
            what = "audio files" if kind is FILE else "texts"
            raise ConfigError(
                f"{path}:1", f"no column for {what}: one must be called {', '.join(kind)}; known: {names}"
            )
    return names, True


def _json_lines(path: str, folder: str) -> Found:
    for number, line in enumerate(text_lines(path), 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as exc:
            yield ConfigError(place, f"is not JSON: {exc.msg} at column {exc.colno}")
            continue
        if not isinstance(row, dict):
            yield ConfigError(place, f'must be an object such as {{"file": "a.wav", "text": "…"}}, but is {line[:60]}')
            continue
        missing = next((kind for kind in (FILE, TEXT) if not any(name in row for name in kind)), None)
        if missing is not None:
            yield ConfigError(place, f"must have one of {', '.join(missing)}, but has {', '.join(row)}")
            continue
        yield _utterance(row, folder, place)


def _kaldi(path: str, folder: str) -> Found:
    """`text`, `wav.scp`, and `segments` if there is one. Relative file names are from `folder`."""
    wavs, texts = (_kaldi_file(path, name) for name in ("wav.scp", "text"))
    segments = _kaldi_file(path, "segments") if os.path.isfile(os.path.join(path, "segments")) else None
    for name, (place, text) in texts.items():
        row: dict[str, Any] = {"id": name, "text": text}
        part: dict[str, float] = {}
        recording = name
        if segments is not None:
            if name not in segments:
                yield ConfigError(place, f'"{name}" is not in {path}/segments{did_you_mean(name, list(segments))}')
                continue
            try:
                recording, start, end = segments[name][1].split()
                part = {"start": float(start), "end": float(end)}
            except ValueError:
                yield ConfigError(
                    segments[name][0], f'must be "name recording start end", but is "{segments[name][1]}"'
                )
                continue
        if recording not in wavs:
            yield ConfigError(place, f'"{recording}" is not in {path}/wav.scp{did_you_mean(recording, list(wavs))}')
        elif wavs[recording][1].endswith("|"):
            yield ConfigError(wavs[recording][0], "is a command; write its output to a file and name that")
        else:
            yield _utterance({**row, "file": wavs[recording][1]}, folder, place, **part)


def _kaldi_file(folder: str, name: str) -> dict[str, tuple[str, str]]:
    """{first word of a line: (place, the rest)}."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise ConfigError(folder, f"must be {FORMS}, but a Kaldi folder needs the file {name}")
    rows = ((f"{path}:{number}", *line.strip().partition(" ")) for number, line in enumerate(text_lines(path), 1))
    return {key: (place, rest.strip()) for place, key, _, rest in rows if key}


def _hugging_face(path: str, folder: str) -> Found:
    """The data set's audio column, and the one with texts; its splits, if it has them."""
    try:
        import datasets
    except ImportError:
        raise ConfigError(path, 'needs the package datasets: pip install "returnn-lite[huggingface]"') from None
    if path.endswith(".parquet"):
        loaded: Any = datasets.load_dataset("parquet", data_files=path, split="train")
    else:
        loaded = datasets.load_from_disk(path)
    parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]
    for split, part in parts:
        audio = next((name for name, kind in part.features.items() if isinstance(kind, datasets.Audio)), None)
        text = next((name for name in TEXT if name in part.features), None)
        if audio is None or text is None:
            what = "with audio" if audio is None else f"called {', '.join(TEXT)}"
            raise ConfigError(path, f"has no column {what}; known: {', '.join(part.features)}")
        table = part.cast_column(audio, datasets.Audio(decode=False))
        for number in range(len(table)):
            yield _row(table, number, audio, text, f"{path}: {split or 'row'} {number}", split)


def _row(table: Any, number: int, audio: str, text: str, place: str, split: str) -> Utterance | ConfigError:
    row = table[number]
    content = " ".join(str(row[text] or "").split())
    name = row[audio].get("path") or f"{number:06}.wav"
    if not content:
        return ConfigError(place, f"the text of {name} is empty")
    tag = str(row.get("id") or (f"{split}-" if split else "") + f"{number:06}")

    def read() -> bytes:
        found = table[number][audio]
        return bytes(found["bytes"]) if found.get("bytes") is not None else _content(found["path"])

    return Utterance(tag, content, place, name, read, split=SPLITS.get(split, ""))
