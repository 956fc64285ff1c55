"""Samples of WAV files in frames."""

from __future__ import annotations

import math
import os

import numpy as np

from returnn_lite.datasets.audio.file import read_wav_samples
from returnn_lite.datasets.audio.ogg_zip import read_bytes_of
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.options import BaseOptions, DataError
from returnn_lite.datasets.order.tags import TagTable
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log
from returnn_lite.reading import read_text


@dataset("RawWavDataset")
class RawWavDataset(Dataset):
    """Each WAV file of `listFile` (a path per line) as frames of `frameLength` samples, one every `frameShift` samples.

    The samples are the stored numbers; the last frame is filled with zeros. `num_outputs` is only a description: there
    are no targets.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        listFile: str,
        frameLength: int,
        frameShift: int,
        num_outputs: int,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        for option, value in (("frameLength", frameLength), ("frameShift", frameShift)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{self.name}: {option}", f"must be a whole number >= 1, but is {value!r} instead")
        lines = read_text(listFile, f"{self.name}: listFile").splitlines()
        self.paths = TagTable.of(line.strip() for line in lines if line.strip())
        if not len(self.paths):
            raise ConfigError(f"{self.name}: listFile", f"{listFile} lists no files")
        missing = next((path for path in self.paths if not os.path.isfile(path)), None)
        if missing is not None:
            raise ConfigError(f"{self.name}: listFile", f"file {missing} does not exist")
        self.size, self.shift, self.num_inputs = frameLength, frameShift, frameLength
        self.num_outputs = {"data": (frameLength, 2), "classes": (num_outputs, 2)}

    def get_total_num_seqs(self, *, fast: bool = False) -> int:
        """Number of files."""
        return len(self.paths)

    def get_data_keys(self) -> list[str]:
        """Only "data"."""
        return ["data"]

    def load_corpus_seqs(self, indices: np.ndarray) -> list[Seq]:
        """Reads the files."""
        return [{"data": self._frames(int(i))} for i in indices]

    def _frames(self, index: int) -> np.ndarray:
        path = self.paths[index]
        try:
            samples, _ = read_wav_samples(read_bytes_of(path), path)
        except ConfigError as exc:
            raise DataError(f'{self.name}: sequence "{self.corpus_tag(index)}"', str(exc)) from None
        if samples.ndim != 1:
            raise DataError(f'{self.name}: sequence "{self.corpus_tag(index)}"', f"{path} must have one channel")
        count = max(math.ceil((len(samples) - self.size) / self.shift), 0) + 1
        padded = np.zeros((count - 1) * self.shift + self.size, "float32")
        padded[: len(samples)] = samples
        return np.lib.stride_tricks.sliding_window_view(padded, self.size)[:: self.shift].copy()
