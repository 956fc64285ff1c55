"""Audio and texts from zip files, or from a folder and a list."""

from __future__ import annotations

import ast
import gzip
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.audio.pipeline import AudioFeatures
from returnn_lite.datasets.audio.transcribed import Transcribed
from returnn_lite.datasets.casting import class_indices
from returnn_lite.datasets.combined.epoch_filter import EpochFilter
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.seq_list import read_seq_list
from returnn_lite.datasets.order.tags import TableBuilder, TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.text.normalization import TextFunction
from returnn_lite.datasets.zip_files import ZipFiles, unsafe
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import read_bytes
from returnn_lite.vocab import Vocabulary, create_vocab

TEXT = {"dtype": "string", "shape": ()}
_ENTRY_OF_LINE = re.compile(rb"^\s*\[?\s*(\{.*\})\s*,?\s*\]?\s*$")


@dataclass
class Source:
    """A zip file, or a folder: its internal name, and where the list is if not inside."""

    path: str
    name: str
    list_file: str | None = None
    folder: bool = False


@dataset("OggZipDataset")
class OggZipDataset(Transcribed):
    """Audio and texts of zip files; or of the folder `path` with the list `path`.txt next to it.

    `<name>.txt` in the zip is a list of dicts with "text", "duration" (seconds), "file" and "seq_name"; audio files are
    `<name>/<file>`, without `<name>/` if `zip_audio_files_have_name_as_prefix` is false. `audio` (features; None: no
    audio) and `targets` (vocabulary; None: no targets) must be given. Keys: "data", "classes", "orth" (bytes), "raw".
    """

    constant_parts = ("zips", "corpus")

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        path: str | Sequence[str],
        audio: ConfigDict | None,
        targets: ConfigValue,
        targets_post_process: ConfigValue = None,
        content_name: str | Sequence[str] | None = None,
        resolve_symlink_for_name: bool = False,
        use_cache_manager: bool = False,
        segment_file: str | None = None,
        zip_audio_files_have_name_as_prefix: bool = True,
        fixed_random_subset: float | None = None,
        fixed_random_subset_seed: int = 42,
        epoch_wise_filter: Mapping[Any, Any] | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.sources = _sources(path, content_name, resolve_symlink_for_name, f"{self.name}: path")
        self.audio = AudioFeatures.parse(audio, f"{self.name}: audio")
        self.targets: Vocabulary | None = None if targets is None else create_vocab(targets, f"{self.name}: targets")
        self.post_process = TextFunction(targets_post_process, f"{self.name}: targets_post_process")
        self.prefix, self.segment_file = zip_audio_files_have_name_as_prefix, segment_file
        self.subset, self.subset_seed = fixed_random_subset, fixed_random_subset_seed
        self.filter = EpochFilter.parse(epoch_wise_filter, f"{self.name}: epoch_wise_filter")
        self.zips, self.rng = ZipFiles(), np.random.RandomState(0)
        self._describe()

    def _describe(self) -> None:
        if self.audio is not None:
            self.num_inputs = self.audio.dim
            self.num_outputs["data"] = (self.audio.dim, len(self.audio.shape) + 1)
        if self.targets is not None:
            self.num_outputs["classes"] = (self.targets.num_labels, 1)
            self.labels["classes"] = self.targets.labels
        self.num_outputs |= {"orth": (256, 1), "raw": TEXT}

    # --- the corpus ---

    @cached_property
    def corpus(self) -> Corpus:
        """The lists of all sources, filtered; read when first needed."""
        corpus = Corpus.read([self._entries(i) for i in range(len(self.sources))])
        if self.segment_file is not None:
            wanted = TagTable.of(read_seq_list(self.segment_file, f"{self.name}: segment_file"))
            found = wanted.find_all(corpus.tags)
            corpus = corpus.take(np.flatnonzero(found >= 0))
        if self.subset is not None:
            order = np.arange(len(corpus.tags))
            np.random.RandomState(self.subset_seed).shuffle(order)
            count = int(len(order) * self.subset) if 0 < self.subset < 1 else int(self.subset)
            corpus = corpus.take(order[:count])
        if not len(corpus.tags):
            raise ConfigError(self.name, f"no data found in {', '.join(source.path for source in self.sources)}")
        self.log.v4(f"{self.name}: {len(corpus.tags)} sequences")
        return corpus

    def _entries(self, number: int) -> Iterator[Entry]:
        source = self.sources[number]
        where = f"{source.path}: {source.name}.txt"
        if source.list_file is not None:
            content = read_bytes(source.list_file, f"{self.name}: path")
        else:
            content = self.zips.read(source.path, f"{source.name}.txt")
        for i, entry in enumerate(parse_list(content, where)):
            self._check_entry(entry, f"{where}: entry {i}", first=i == 0)
            yield entry

    def _check_entry(self, entry: ConfigValue, where: str, *, first: bool) -> None:
        """Raises ConfigError. Durations must be floats; that is only checked for the first: later ones may be whole."""
        if not isinstance(entry, dict):
            raise ConfigError(where, f"must be a dict, but is {str(entry)[:100]} instead")
        duration = float if first else int | float
        kinds = {"text": (str, "str"), "duration": (duration, "float"), "file": (str, "str"), "seq_name": (str, "str")}
        needed = ["text", "duration", "file" if self.audio is not None else "seq_name"]
        for key, (kind, kind_name) in kinds.items():
            value = entry.get(key)
            if value is None and key in needed and not (key == "seq_name" and "file" in entry):
                raise ConfigError(where, f'must have "{key}", but has {sorted(entry)} only')
            if value is not None and not isinstance(value, kind):
                raise ConfigError(where, f'"{key}" must be of type {kind_name}, but is {value!r} instead')
        if unsafe(entry.get("file") or ""):
            raise ConfigError(where, f'has the unsafe file name "{entry["file"]}"')

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Entries of the lists."""
        return len(self.corpus.tags)

    def get_all_tags(self) -> TagTable:
        """Names of the sequences."""
        return self.corpus.tags

    def corpus_tag(self, index: int) -> str:
        """The entry's `seq_name`, else its `file`."""
        return self.corpus.tags[index]

    def sort_lengths(self) -> np.ndarray:
        """Durations in 1/100 s."""
        return self.corpus.lengths

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        order = super()._new_order(epoch, seq_list, given)
        if order is not None and epoch is not None and seq_list is None and given is None and self.filter:
            order = self.filter.apply(order, self.corpus.lengths, epoch, self.log)
        return order

    def finish_epoch(self, free_resources: bool = False) -> None:
        """Ends the epoch; with `free_resources` zip files are closed and the list is dropped."""
        super().finish_epoch(free_resources)
        if free_resources:
            self.zips.close()
            self.__dict__.pop("corpus", None)
            self.__dict__.pop("tag_table", None)

    # --- sequences ---

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the sequences, one after another."""
        return [self._load(int(i)) for i in indices]

    def _load(self, index: int) -> Seq:
        text, seq = self.corpus.texts[index], {}
        tag = self.corpus_tag(index)
        try:
            if self.audio is not None:
                samples, rate = read_audio(*self._audio_of(index))
                seq["data"] = self.audio(samples, rate, seq_name=tag, rng=self.rng)
            if self.targets is not None:
                seq["classes"] = class_indices(self.targets.get_seq(self.post_process(text)))
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{tag}"', str(exc)) from None
        return {**seq, "orth": np.frombuffer(text.encode("utf8"), np.uint8), "raw": np.array(text)}

    def file_of(self, seq_idx: int, key: str) -> str:
        """The zip file, or the folder."""
        return self.sources[int(self.corpus.source[self.get_corpus_seq_idx(seq_idx)])].path

    def _audio_of(self, index: int) -> tuple[bytes, str]:
        """(content of the audio file, where it is)."""
        source, name = self.sources[self.corpus.source[index]], self.corpus.files[index]
        if source.folder:
            path = os.path.join(source.path, name) if self.prefix else os.path.join(os.path.dirname(source.path), name)
            return read_bytes_of(path), path
        entry = f"{source.name}/{name}" if self.prefix else name
        return self.zips.read(source.path, entry), f"{source.path}: {entry}"

    def get_data_keys(self) -> list[str]:
        """ "data", "classes", "orth", "raw", as far as they are there."""
        return list(self.num_outputs)

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


class Entry(TypedDict, total=False):
    """What a list says of a sequence; `duration` in seconds."""

    text: str
    duration: float
    file: str | None
    seq_name: str | None


@dataclass
class Corpus:
    """The entries of lists: little memory per sequence. `source` says which list, `lengths` are 1/100 s."""

    tags: TagTable
    texts: TagTable
    files: TagTable
    lengths: np.ndarray
    source: np.ndarray

    @classmethod
    def read(cls, lists: Sequence[Iterator[Entry]]) -> Corpus:
        """From the entries."""
        tags, texts, files = TableBuilder(), TableBuilder(), TableBuilder()
        lengths, sources = array("q"), array("i")
        for number, entries in enumerate(lists):
            for entry in entries:
                file = entry.get("file") or ""
                tags.append(entry.get("seq_name") or file)
                texts.append(entry["text"])
                files.append(file)
                lengths.append(int(entry["duration"] * 100))
                sources.append(number)
        numbers = (np.array(lengths, np.int64), np.array(sources, np.int32))
        return cls(tags.table(), texts.table(), files.table(), *numbers)

    def take(self, indices: np.ndarray) -> Corpus:
        """Some of the sequences."""
        tables = (self.tags.take(indices), self.texts.take(indices), self.files.take(indices))
        return Corpus(*tables, self.lengths[indices], self.source[indices])


def parse_list(content: bytes, where: str) -> Iterator[ConfigValue]:
    """The entries of a Python list of dicts; dicts on lines of their own are read one by one, in less memory."""
    lines = content.split(b"\n") if content.count(b"\n") > 2 else []
    matches = [_ENTRY_OF_LINE.match(line) for line in lines if line.strip() not in (b"", b"[", b"]")]
    if matches and all(matches):
        for match in matches:
            yield _literal(match[1] if match else b"", where)
        return
    found = _literal(content, where)
    if not isinstance(found, list | tuple) or not found:
        raise ConfigError(where, "must be a non-empty list of dicts")
    yield from found


def _literal(content: bytes, where: str) -> ConfigValue:
    try:
        return ast.literal_eval(content.decode("utf8").strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError) as exc:
        raise ConfigError(where, f"must be a Python list of dicts: {exc}") from None


def _sources(path: ConfigValue, content_name: ConfigValue, resolve: bool, option: str) -> list[Source]:
    paths = [path] if isinstance(path, str) else list(path)
    if isinstance(path, str) and os.path.isdir(path) and not path.endswith(".zip"):
        if not os.path.isfile(f"{path}.txt"):
            raise ConfigError(option, f"the folder needs the list {path}.txt, which does not exist")
        return [Source(path, os.path.basename(path), f"{path}.txt", folder=True)]
    lists = {os.path.basename(p).removesuffix(".txt.gz"): p for p in paths if p.endswith(".txt.gz")}
    zips = [p for p in paths if not p.endswith(".txt.gz")]
    if not zips:
        raise ConfigError(option, "must have at least one zip file")
    names = [content_name] * len(zips) if isinstance(content_name, str) else list(content_name or [])
    sources = []
    for i, zip_path in enumerate(zips):
        if not zip_path.endswith(".zip"):
            raise ConfigError(option, f"must be files *.zip or *.txt.gz, or one folder, but there is {zip_path!r}")
        real = os.path.realpath(zip_path) if resolve else zip_path
        name = names[i] if i < len(names) else os.path.basename(real).removesuffix(".zip")
        if not os.path.isfile(zip_path):
            raise ConfigError(option, f"file {zip_path} does not exist")
        sources.append(Source(zip_path, name, lists.get(name)))
    return sources


def read_bytes_of(path: str) -> bytes:
    """The content of a file; raises ConfigError if it cannot be read."""
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigError(path, f"cannot be read: {exc.strerror or exc}") from None
