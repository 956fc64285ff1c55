"""The LibriSpeech corpus in its own folders or zip files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.audio.ogg_zip import TEXT, read_bytes_of
from returnn_lite.datasets.audio.pipeline import AudioFeatures
from returnn_lite.datasets.audio.transcribed import Transcribed
from returnn_lite.datasets.casting import class_indices
from returnn_lite.datasets.combined.epoch_filter import EpochFilter
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.text.normalization import TextFunction
from returnn_lite.datasets.zip_files import ZipFiles
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.vocab import Vocabulary, create_vocab

PREFIXES = ("train", "dev", "test")
SUBSET_SEED = 42
FILTER_OPTIONS = ("max_mean_len", "subdirs", "use_new_filter")


@dataset("LibriSpeechCorpus")
class LibriSpeechCorpus(Transcribed):
    """LibriSpeech: all parts of `path` whose names begin with `prefix`, as folders, or as zip files with `use_zip`.

    Keys: "data" (features by `audio`; one zero without), "classes" (by `targets`, `chars` or `bpe`), "raw". Orders by
    length go by the characters of the text.
    """

    constant_parts = ("zips",)

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        path: str,
        prefix: str,
        audio: ConfigDict | None,
        orth_post_process: ConfigValue = None,
        targets: ConfigValue = None,
        chars: ConfigDict | None = None,
        bpe: ConfigDict | None = None,
        use_zip: bool = False,
        use_ogg: bool = False,
        use_cache_manager: bool = False,
        fixed_random_subset: float | None = None,
        epoch_wise_filter: Mapping[Any, Any] | None = None,
        seq_tag_format: str = "%(subdir)s-%(speaker)i-%(chapter)i-%(seq)04i",
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if self.name == BaseOptions.name:
            self.name = f"prefix:{prefix}"
        if prefix.split("-")[0] not in PREFIXES:
            raise ConfigError(f"{self.name}: prefix", f"must begin with one of {PREFIXES}, but is {prefix!r} instead")
        self.path, self.prefix, self.use_zip, self.use_ogg = path, prefix, use_zip, use_ogg
        needed = os.path.join(path, "train-clean-100" + ".zip" * use_zip)
        if not os.path.exists(needed):
            raise ConfigError(f"{self.name}: path", f"{needed} does not exist")
        self.audio = AudioFeatures.parse(audio, f"{self.name}: audio")
        self.targets = self._vocab(targets, chars, bpe)
        self.post_process = TextFunction(orth_post_process, f"{self.name}: orth_post_process")
        self.subset, self.tag_format = fixed_random_subset, seq_tag_format
        self.filter = EpochFilter.parse(epoch_wise_filter, f"{self.name}: epoch_wise_filter", FILTER_OPTIONS)
        self.zips, self.rng = ZipFiles(), np.random.RandomState(0)
        self._describe()

    def _vocab(self, targets: ConfigValue, chars: ConfigValue, bpe: ConfigValue) -> Vocabulary | None:
        if chars is not None and bpe is not None:
            raise ConfigError(f"{self.name}: targets", "chars and bpe must not both be set")
        kind = targets if targets is not None else "chars" if chars is not None else "bpe" if bpe is not None else None
        if kind is None:
            return None
        options = {"chars": chars, "bpe": bpe}
        classes = {"chars": "CharacterTargets", "bpe": "BytePairEncoding"}
        if isinstance(kind, str):
            if options.get(kind) is None or any(value is not None for name, value in options.items() if name != kind):
                raise ConfigError(
                    f"{self.name}: targets", f'invalid targets {kind!r}: must be "chars" or "bpe" with these options'
                )
            return create_vocab({"class": classes[kind], **options[kind]}, f"{self.name}: {kind}")
        if chars is not None or bpe is not None:
            raise ConfigError(f"{self.name}: targets", "must not be a dict where chars or bpe is set")
        return create_vocab(kind, f"{self.name}: targets")

    def _describe(self) -> None:
        self.num_outputs["raw"] = TEXT
        if self.targets is not None:
            self.num_outputs["classes"] = (self.targets.num_labels, 1)
            self.labels["classes"] = self.targets.labels
        if self.audio is not None:
            self.num_inputs = self.audio.dim
            self.num_outputs["data"] = (self.audio.dim, 2)

    # --- the corpus ---

    @cached_property
    def _table(self) -> tuple[TagTable, TagTable, np.ndarray, list[str]]:
        """(texts, tags, ids int [N, 4] of subdir, speaker, chapter, seq; names of the subdirs)."""
        subdirs = self._subdirs()
        found = sorted(((i, *ids), text) for i, subdir in enumerate(subdirs) for ids, text in self._transcripts(subdir))
        if not found:
            raise ConfigError(f"{self.name}: prefix", f"no sequences of {self.prefix} in {self.path}")
        if self.subset is not None:
            np.random.RandomState(SUBSET_SEED).shuffle(found)
            found = found[: int(len(found) * self.subset) if 0 < self.subset < 1 else int(self.subset)]
        ids = np.array([ids for ids, _ in found], np.int64)
        tags = TagTable.of(self._tag(subdirs, row) for row in ids.tolist())
        return TagTable.of(text for _, text in found), tags, ids, subdirs

    def _tag(self, subdirs: list[str], ids: list[int]) -> str:
        names = {"speaker": ids[1], "chapter": ids[2], "seq": ids[3]}
        return self.tag_format % {"subdir": subdirs[ids[0]], **names}

    def _subdirs(self) -> list[str]:
        names = [name for name in os.listdir(self.path) if name.startswith(self.prefix)]
        if self.use_zip:
            return sorted(name.removesuffix(".zip") for name in names if name.endswith(".zip"))
        return sorted(name for name in names if os.path.isdir(os.path.join(self.path, name)))

    def _transcripts(self, subdir: str) -> Iterator[tuple[tuple[int, int, int], str]]:
        """((speaker, chapter, seq), text) of all lines of all trans.txt files."""
        for where, content in self._transcript_files(subdir):
            for number, line in enumerate(content.decode("utf8").splitlines()):
                ids, _, text = line.partition(" ")
                parts = ids.split("-")
                if len(parts) != 3 or not all(part.isdecimal() for part in parts):
                    raise ConfigError(where, f'line {number + 1} must be "speaker-chapter-seq text", but is "{line}"')
                yield (int(parts[0]), int(parts[1]), int(parts[2])), self.post_process(text)

    def _transcript_files(self, subdir: str) -> Iterator[tuple[str, bytes]]:
        if self.use_zip:
            path = os.path.join(self.path, f"{subdir}.zip")
            for name in self.zips.names(path):
                if name.startswith(f"LibriSpeech/{subdir}/") and name.endswith(".trans.txt"):
                    yield f"{path}: {name}", self.zips.read(path, name)
            return
        for folder, _, files in os.walk(os.path.join(self.path, subdir)):
            for name in files:
                if name.endswith(".trans.txt"):
                    yield os.path.join(folder, name), read_bytes_of(os.path.join(folder, name))

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Lines of the transcripts."""
        return len(self._table[0])

    def get_all_tags(self) -> TagTable:
        """By `seq_tag_format`."""
        return self._table[1]

    def corpus_tag(self, index: int) -> str:
        """By `seq_tag_format`."""
        return self._table[1][index]

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.fromiter((len(text) for text in self._table[0]), np.int64)

    def sort_lengths(self) -> np.ndarray:
        """Characters of the texts."""
        return self._lengths

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        order = super()._new_order(epoch, seq_list, given)
        for options in self.filter.options(epoch) if epoch is not None and order is not None else ():
            order = self._filtered(np.asarray(order), options)
        return order

    def _filtered(self, order: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        if options.get("subdirs") is not None:
            names = self._table[3]
            wanted = [i for i, name in enumerate(names) if name in options["subdirs"]]
            order = order[np.isin(self._table[2][order, 0], wanted)]
            if not len(order):
                raise ConfigError(
                    f"{self.name}: epoch_wise_filter",
                    f"no sequences are left with subdirs {options['subdirs']} of {names}",
                )
        limit = options.get("max_mean_len")
        if not limit:
            return order
        if options.get("use_new_filter"):
            only = EpochFilter(((0, np.inf, {"max_mean_len": limit}),))
            return only.apply(order, self._lengths, 1, self.log)
        return self._shortest_sorted(order, limit)

    def _shortest_sorted(self, order: np.ndarray, limit: float) -> np.ndarray:
        """Some of the shortest sequences, sorted: the first number tried whose mean is within the limit."""
        ranked = order[np.lexsort((order, self._lengths[order]))]
        sums = np.cumsum(self._lengths[ranked])
        low, high = 1, len(ranked) + 1
        while low < high:
            middle = (low + high) // 2
            if sums[middle - 1] / middle > limit:
                high = middle
            else:
                return ranked[:middle]
        return ranked[:low]

    # --- sequences ---

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the sequences, one after another."""
        return [self._load(int(i)) for i in indices]

    def _load(self, index: int) -> Seq:
        text, tag = self._table[0][index], self.corpus_tag(index)
        seq: Seq = {"raw": np.array(text, object), "data": np.array(0.0)}
        try:
            if self.targets is not None:
                seq["classes"] = class_indices(self.targets.get_seq(text))
            if self.audio is not None:
                samples, rate = read_audio(*self._audio_of(index))
                seq["data"] = self.audio(samples, rate, seq_name=tag, rng=self.rng)
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{tag}"', str(exc)) from None
        return seq

    def _audio_of(self, index: int) -> tuple[bytes, str]:
        number, speaker, chapter, seq = self._table[2][index].tolist()
        subdir = self._table[3][number]
        name = f"{subdir}/{speaker}/{chapter}/{speaker}-{chapter}-{seq:04}.flac{'.ogg' * self.use_ogg}"
        if self.use_zip:
            path = os.path.join(self.path, f"{subdir}.zip")
            return self.zips.read(path, f"LibriSpeech/{name}"), f"{path}: LibriSpeech/{name}"
        path = os.path.join(self.path, name)
        return read_bytes_of(path), path

    # --- what the data are ---

    def get_data_keys(self) -> list[str]:
        """ "classes" (with targets), "data", "raw"."""
        return sorted({"data", *self.num_outputs})

    def _dim_ndim(self, key: str) -> tuple[int, int]:
        if key == "data" and self.audio is None:
            return 0, 0
        return super()._dim_ndim(key)

    def is_data_sparse(self, key: str) -> bool:
        """Only "classes" are."""
        self._known_dims(key)
        return key == "classes"

    def get_data_dtype(self, key: str) -> str:
        """ "object" for texts."""
        self._dim_ndim(key)
        if key == "data" and self.audio is None:
            return "float64"
        return {"raw": "object", "classes": "int32"}.get(key, "float32")
