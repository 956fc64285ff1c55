"""The TIMIT corpus, and Bliss corpora: readers over the formats."""

from __future__ import annotations

import os

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.audio.bliss_corpus import segments
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.audio.ogg_zip import TEXT, read_bytes_of
from returnn_lite.datasets.audio.pipeline import AudioFeatures
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.casting import class_indices
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import read_bytes, read_text
from returnn_lite.vocab import create_vocab

# Phones that become others when there are 48 or 39 of them. Lee & Hon, Speaker-independent phone recognition, 1989.
SAME = """aa ae ah ao aw ax ay b ch d dh dx eh el en epi er ey f g hh ih ix iy jh k l m n ng ow oy p r s sh sil t th uh
uw v w y z zh""".split()
TO_48 = {"ax-h": "ax", "axr": "er", "bcl": "vcl", "dcl": "vcl", "em": "m", "eng": "ng", "gcl": "vcl", "h#": "sil",
         "hv": "hh", "kcl": "cl", "nx": "n", "pau": "sil", "pcl": "cl", "tcl": "cl", "ux": "uw"}  # fmt: skip
TO_39 = {"ao": "aa", "ax": "ah", "el": "l", "en": "n", "epi": "sil", "ix": "ih", "vcl": "sil", "cl": "sil", "zh": "sh"}
DROPPED = ("q",)
PHONES_61 = sorted({*SAME, *TO_48, *DROPPED} - {"sil"})


def phone_of(phone: str, num_phones: int) -> str | None:
    """The phone of the smaller set; None for one that is dropped."""
    if num_phones == 61:
        return phone
    if phone in DROPPED:
        return None
    phone = TO_48.get(phone, phone)
    return TO_39.get(phone, phone) if num_phones == 39 else phone


def phone_labels(num_phones: int = 61) -> list[str]:
    """The phones of a set of 61, 48 or 39, in the order of their classes."""
    return sorted({new for phone in PHONES_61 if (new := phone_of(phone, num_phones)) is not None})


@dataset("TimitDataset")
class TimitDataset(Dataset):
    """TIMIT: features ("data") and phones ("classes") of the files that a list in `timit_dir` names.

    The lists are train/filelist.phn and test/filelist.core.phn; each name stands for <name>.wav and <name>.phn.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        timit_dir: str,
        train: bool = True,
        preload: bool = False,
        features: str = "mfcc",
        num_feature_filters: int = 40,
        feature_window_len: float = 0.025,
        feature_step_len: float = 0.010,
        with_delta: bool = False,
        norm_mean: ConfigValue = None,
        norm_std_dev: ConfigValue = None,
        random_permute_audio: ConfigValue = None,
        num_phones: int = 61,
        demo_play_audio: bool = False,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if num_phones not in (61, 48, 39):
            raise ConfigError(f"{self.name}: num_phones", f"must be 61, 48 or 39, but is {num_phones!r} instead")
        self.folder = os.path.join(timit_dir, "train" if train else "test")
        listed = os.path.join(self.folder, "filelist.phn" if train else "filelist.core.phn")
        lines = read_text(listed, f"{self.name}: timit_dir").splitlines()
        self.tags = TagTable.of(os.path.splitext(line.strip())[0] for line in lines if line.strip())
        self.num_phones = num_phones
        self.labels["classes"] = phone_labels(num_phones)
        self.ids = {label: i for i, label in enumerate(self.labels["classes"])}
        options = {
            "features": features, "num_feature_filters": num_feature_filters, "window_len": feature_window_len,
            "step_len": feature_step_len, "with_delta": with_delta, "norm_mean": norm_mean,
            "norm_std_dev": norm_std_dev,
            "random_permute": train if random_permute_audio is None else random_permute_audio,
        }  # fmt: skip
        self.audio = AudioFeatures(**options, path=self.name)
        self.num_inputs = self.audio.dim
        self.num_outputs = {"data": (self.audio.dim, 2), "classes": (len(self.ids), 1)}
        self.rng = np.random.RandomState(0)
        self._samples: np.ndarray | None = None

    @classmethod
    def get_labels(cls, num_phones: int = 61) -> list[str]:
        """The names of the classes where there are so many phones."""
        return phone_labels(num_phones)

    @classmethod
    def get_label_map(cls, source_num_phones: int = 61, target_num_phones: int = 39) -> dict[int, int | None]:
        """The class of each class in a smaller set of phones, None where it is dropped."""
        target = {phone: i for i, phone in enumerate(phone_labels(target_num_phones))}
        phones = {i: phone_of(phone, target_num_phones) for i, phone in enumerate(phone_labels(source_num_phones))}
        return {i: None if phone is None else target[phone] for i, phone in phones.items()}

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Names of the list."""
        return len(self.tags)

    def get_all_tags(self) -> TagTable:
        """Names of the list."""
        return self.tags

    def corpus_tag(self, index: int) -> str:
        """Name in the list."""
        return self.tags[index]

    def sort_lengths(self) -> np.ndarray:
        """Samples of each file; all files are read once to know that."""
        if self._samples is None:
            self._samples = np.array([len(self._audio(i)[0]) for i in range(len(self.tags))])
        return self._samples

    def _new_order(self, epoch: int | None, seq_list: ConfigValue, given: ConfigValue) -> np.ndarray | None:
        self.rng = np.random.RandomState(self.order_options.seed(epoch))
        return super()._new_order(epoch, seq_list, given)

    def _path(self, index: int, ending: str) -> str:
        path = os.path.join(self.folder, self.tags[index] + ending)
        return path if os.path.exists(path) or not os.path.exists(path.upper()) else path.upper()

    def _audio(self, index: int) -> tuple[np.ndarray, int]:
        path = self._path(index, ".wav")
        return read_audio(read_bytes_of(path), path)

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the files."""
        return [self._load(int(i)) for i in indices]

    def _load(self, index: int) -> Seq:
        tag = self.corpus_tag(index)
        try:
            classes = self._phones(index)
            return {"data": self.audio(*self._audio(index), seq_name=tag, rng=self.rng), "classes": classes}
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{tag}"', str(exc)) from None

    def _phones(self, index: int) -> np.ndarray:
        path = self._path(index, ".phn")
        found = []
        for number, line in enumerate(read_bytes_of(path).decode("utf8").splitlines()):
            parts = line.split()
            phone = phone_of(parts[2], self.num_phones) if len(parts) == 3 else ""
            if phone is not None and phone not in self.ids:
                raise ConfigError(path, f'line {number + 1} must be "start end phone", but is "{line}"')
            if phone is not None:
                found.append(self.ids[phone])
        return np.array(found, "int32")


@dataset("BlissDataset")
class BlissDataset(Dataset):
    """The segments of a Bliss corpus (XML, possibly `.gz`): features of their audio, and their texts as classes.

    `vocab_file` with `bpe_file` gives the classes; `audio_dir` is prefixed to audio paths that are not absolute.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        path: str,
        vocab_file: str,
        bpe_file: str | None = None,
        num_feature_filters: int = 40,
        feature_window_len: float = 0.025,
        feature_step_len: float = 0.010,
        with_delta: bool = False,
        norm_mean: ConfigValue = None,
        norm_std_dev: ConfigValue = None,
        audio_dir: str | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        vocab = {"vocab_file": vocab_file, "unknown_label": None} | ({"bpe_file": bpe_file} if bpe_file else {})
        self.vocab = create_vocab(vocab, f"{self.name}: vocab_file")
        found = list(segments(read_bytes(path, f"{self.name}: path"), f"{self.name}: path"))
        if not found:
            raise ConfigError(f"{self.name}: path", f"no segments in {path}")
        self.tags, self.texts = TagTable.of(s.tag for s in found), TagTable.of(s.text for s in found)
        self.files = TagTable.of(s.audio for s in found)
        self.times = np.array([(s.start, s.end) for s in found])
        self.folder = os.path.dirname(path) if audio_dir is None else audio_dir
        self.audio = AudioFeatures(
            window_len=feature_window_len, step_len=feature_step_len, num_feature_filters=num_feature_filters,
            with_delta=with_delta, norm_mean=norm_mean, norm_std_dev=norm_std_dev, path=self.name,
        )  # fmt: skip
        self.num_inputs = self.audio.dim
        self.num_outputs = {"data": (self.audio.dim, 2), "classes": (self.vocab.num_labels, 1), "raw": TEXT}
        self.labels["classes"] = self.vocab.labels

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Segments of the corpus."""
        return len(self.tags)

    def get_all_tags(self) -> TagTable:
        """ "corpus/recording/segment"."""
        return self.tags

    def corpus_tag(self, index: int) -> str:
        """ "corpus/recording/segment"."""
        return self.tags[index]

    def sort_lengths(self) -> np.ndarray:
        """Seconds of each segment."""
        lengths: np.ndarray = self.times[:, 1] - self.times[:, 0]
        return lengths

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the segments."""
        return [self._load(int(i)) for i in indices]

    def _load(self, index: int) -> Seq:
        tag, text = self.corpus_tag(index), self.texts[index]
        path = os.path.join(self.folder, self.files[index])
        try:
            samples, rate = read_audio(read_bytes_of(path), path)
            last = len(samples) / rate
            start, end = (int(min(time, last) * rate) for time in self.times[index])
            data = self.audio(samples[start:end], rate, seq_name=tag, rng=np.random.RandomState(0))
            return {"data": data, "classes": class_indices(self.vocab.get_seq(text)), "raw": np.array(text)}
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{tag}"', str(exc)) from None
