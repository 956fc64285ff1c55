"""Recordings and texts in tar files, as the package webdataset writes them."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.audio.pipeline import AudioFeatures
from returnn_lite.datasets.casting import class_indices
from returnn_lite.datasets.combined.read_in_order import Item
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.streaming.stream import Entry, Reading, StreamDataset
from returnn_lite.datasets.text.normalization import TextFunction
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log
from returnn_lite.vocab import create_vocab

TEXT = {"dtype": "string", "shape": ()}
AUDIO = ("ogg", "flac", "wav", "opus", "mp3")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
Members = list[tarfile.TarInfo]


@dataset("TarDataset")
class TarDataset(StreamDataset):
    """The files of a sequence are adjacent and differ in their extension after the first dot: a.ogg, a.txt.

    `files`: paths, with `*` or ranges {000..119}; each is read from front to back, so that it may be as large as it
    likes. `audio` (features, as of OggZipDataset; None: no audio) of a file .ogg, .flac, .wav, .opus or .mp3; texts
    from .txt, or "text" in a .json, `targets` (vocabulary) makes "classes" of them. Keys: "data", "classes", "orth"
    (bytes), "raw".
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        files: str | Sequence[str],
        audio: ConfigDict | None,
        targets: ConfigValue = None,
        targets_post_process: ConfigValue = None,
        seqs_per_epoch: int | None = None,
        shuffle_window: int = 0,
        sort_window: int = 0,
        length_key: str | None = None,
        log: Log | None = None,
    ):
        super().__init__(
            base,
            seqs_per_epoch=seqs_per_epoch,
            shuffle_window=shuffle_window,
            sort_window=sort_window,
            length_key=length_key,
            log=log,
        )
        self.files = paths(files, f"{self.name}: files")
        self.audio = AudioFeatures.parse(audio, f"{self.name}: audio")
        self.targets = None if targets is None else create_vocab(targets, f"{self.name}: targets")
        self.post_process = TextFunction(targets_post_process, f"{self.name}: targets_post_process")
        if self.audio is not None:
            self.num_inputs = self.audio.dim
            self.num_outputs["data"] = (self.audio.dim, len(self.audio.shape) + 1)
        if self.targets is not None:
            self.num_outputs["classes"] = (self.targets.num_labels, 1)
            self.labels["classes"] = self.targets.labels
        self.num_outputs |= {"orth": (256, 1), "raw": TEXT}
        self.check_length_key()

    def _items(self, epoch: int) -> Iterator[Item]:
        seed = self.order_options.seed(epoch)
        self.rng = np.random.RandomState(seed)
        if self.targets is not None:
            self.targets.set_random_seed(seed)
        return super()._items(epoch)

    def entries(self, skip: int) -> Iterator[Reading]:
        """One pass over all files; what is skipped is not read where a file is not compressed."""
        for path in self.files:
            try:
                with tarfile.open(path) as file:
                    for members in groups(file):
                        if skip:
                            skip -= 1
                        else:
                            yield partial(self._read, file, path, members)
            except (tarfile.TarError, OSError, EOFError) as exc:
                raise DataError(f"{self.name}: {path}", f"cannot be read as a tar file: {exc}") from None

    def _read(self, file: tarfile.TarFile, path: str, members: Members) -> Entry:
        contents = {}
        for member in members:
            source = file.extractfile(member)
            contents[extension(member.name)] = b"" if source is None else source.read()
        tag = stem(members[0].name)
        return tag, partial(self._make, tag, contents, path)

    def _make(self, tag: str, contents: dict[str, bytes], path: str) -> Seq:
        seq: dict[str, np.ndarray] = {}
        if self.audio is not None:
            kind = next((kind for kind in AUDIO if kind in contents), None)
            if kind is None:
                raise ConfigError(path, f"has no audio file of it, but {', '.join(contents)}")
            samples, rate = read_audio(contents[kind], f"{path}: {tag}.{kind}")
            seq["data"] = self.audio(samples, rate, seq_name=tag, rng=self.rng)
        text = text_of(contents, path)
        if self.targets is not None:
            if text is None:
                raise ConfigError(path, f'has no .txt, nor a .json with "text", of it, but {", ".join(contents)}')
            seq["classes"] = class_indices(self.targets.get_seq(self.post_process(text)))
        raw = text or ""
        return {**seq, "orth": np.frombuffer(raw.encode("utf8"), np.uint8), "raw": np.array(raw)}

    def get_target_list(self) -> list[str]:
        """All keys but "data"."""
        return [key for key in self.num_outputs if key != "data"]

    def get_data_shape(self, key: str) -> list[int | None]:
        """Shape without time."""
        if key == "data" and self.audio is not None:
            return self.audio.shape
        return super().get_data_shape(key)

    def get_data_dtype(self, key: str) -> str:
        """Dtypes."""
        return "uint8" if key == "orth" else super().get_data_dtype(key)


def paths(value: ConfigValue, option: str) -> list[str]:
    """The files that texts with `*` and ranges {000..119} mean, in order. ConfigError if one is not there."""
    texts = [value] if isinstance(value, str) else list(value)
    found: list[str] = []
    for text in texts:
        for plain in expanded(text):
            names = sorted(glob.glob(plain)) if any(c in plain for c in "*?[") else [plain] * os.path.isfile(plain)
            if not names:
                folder = os.path.dirname(plain) or "."
                hint = did_you_mean(os.path.basename(plain), os.listdir(folder)) if os.path.isdir(folder) else ""
                raise ConfigError(option, f"file {plain} does not exist{hint}")
            found += names
    if not found:
        raise ConfigError(option, "must name at least one tar file")
    return found


def expanded(text: str) -> Iterator[str]:
    """a{08..10} -> a08, a09, a10"""
    match = BRACES.search(text)
    if match is None:
        yield text
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        for rest in expanded(text[match.end() :]):
            yield f"{text[: match.start()]}{number:0{len(first)}d}{rest}"


def groups(file: tarfile.TarFile) -> Iterator[Members]:
    """The members of each sequence. TarError if the end is missing."""
    group: Members = []
    for member in file:
        file.members = []  # type: ignore[attr-defined]  # else it would keep all of them
        if not member.isfile():
            continue
        if group and stem(group[0].name) != stem(member.name):
            yield group
            group = []
        group.append(member)
    source = file.fileobj
    if source is None or source.tell() < file.offset + tarfile.BLOCKSIZE:  # which tarfile takes for the end
        raise tarfile.TarError("the end is missing")
    if group:
        yield group


def stem(name: str) -> str:
    """The path up to the first dot of the file's name."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}" if folder else base.partition(".")[0]


def extension(name: str) -> str:
    """What comes after that dot, in small letters."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def text_of(contents: dict[str, bytes], path: str) -> str | None:
    """The text of a sequence; None if there is none."""
    if "txt" in contents:
        return contents["txt"].decode("utf8").strip()
    if "json" not in contents:
        return None
    try:
        found: Any = json.loads(contents["json"])
    except ValueError as exc:
        raise ConfigError(path, f"has a .json that cannot be read: {exc}") from None
    text = found.get("text") if isinstance(found, dict) else None
    return text if isinstance(text, str) else None
