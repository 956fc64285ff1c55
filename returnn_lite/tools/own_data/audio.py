"""`data audio`: audio files and transcripts as zip files for OggZipDataset."""

from __future__ import annotations

import argparse
import io
import os
import wave
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.datasets.audio.augment import resample
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.zip_files import unsafe
from returnn_lite.errors import ConfigError
from returnn_lite.files import TEMPORARY, own_temporary, remove_if_there
from returnn_lite.tools.common import Progress
from returnn_lite.tools.own_data import sets
from returnn_lite.tools.own_data.labels import KINDS, Labels
from returnn_lite.tools.own_data.transcripts import Utterance, read_transcripts


@dataclass
class Converter:
    """Audio as it goes into the data set: `rate` Hz (None: that of the first file) and one channel.

    resample, mix: whether other rates, and several channels, are converted; else they are errors.
    """

    rate: int | None
    resample: bool
    mix: bool
    first: str = ""

    def convert(self, one: Utterance) -> tuple[bytes, float, str]:
        """(content, seconds, suffix) of an utterance: the file as it is, where it can be. ConfigError if it is bad."""
        content = one.read()
        samples, rate = read_audio(content, f"{one.place}: {one.file}")
        self._check(one, samples, rate)
        wanted = self.rate or rate
        if self.rate is None:
            self.rate, self.first = rate, one.file
        part = self._part(one, samples, rate)
        if len(part) == len(samples) and rate == wanted and samples.ndim == 1:
            return content, len(samples) / rate, os.path.splitext(one.file)[1].lower() or ".wav"
        mono = part.mean(1) if part.ndim > 1 else part
        final = resample(mono, wanted / rate) if rate != wanted else mono
        return wav(final, wanted), len(final) / wanted, ".wav"

    def _check(self, one: Utterance, samples: np.ndarray, rate: int) -> None:
        where = f"{one.place}: {one.file}"
        if not len(samples):
            raise ConfigError(where, "has no samples")
        if not np.any(samples):
            raise ConfigError(where, "is silent: all samples are 0")
        if samples.ndim > 1 and samples.shape[1] > 1 and not self.mix:
            raise ConfigError(where, f"has {samples.shape[1]} channels; --mono mixes them")
        if self.rate is not None and rate != self.rate and not self.resample:
            raise ConfigError(
                where, f"has {rate} Hz, but {self.first} has {self.rate}; --sample_rate {self.rate} converts all files"
            )

    @staticmethod
    def _part(one: Utterance, samples: np.ndarray, rate: int) -> np.ndarray:
        seconds = len(samples) / rate
        end = seconds if one.end is None else one.end
        if not 0 <= one.start < end:
            raise ConfigError(one.place, f"must begin before it ends, but goes from {one.start:g} s to {end:g} s")
        if end > seconds + 0.1:
            raise ConfigError(one.place, f"ends at {end:g} s, but {one.file} has {seconds:.2f} s")
        return samples[round(one.start * rate) : round(end * rate)]


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of 16 bits, of samples (T,) in [-1, 1]."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * (2**15 - 1)).round().astype("<i2").tobytes())
    return content.getvalue()


def write_zip(
    path: str, name: str, given: Sequence[Utterance], converter: Converter, wrong: list[ConfigError]
) -> tuple[list[Utterance], float]:
    """Writes the zip file of a set, without what is wrong, which goes into `wrong`; what is in it, and its seconds."""
    temporary, progress = own_temporary(path, TEMPORARY), Progress(f"utterances of {name}")
    entries: list[dict[str, Any]] = []
    good = []
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for one in given:
                try:
                    content, seconds, suffix = converter.convert(one)
                except (ConfigError, OSError) as exc:
                    wrong.append(exc if isinstance(exc, ConfigError) else ConfigError(one.place, str(exc)))
                    continue
                finally:
                    progress.step((len(entries) + len(wrong)) / len(given))
                archive.writestr(f"{name}/{one.tag}{suffix}", content)
                file = {"text": one.text, "duration": seconds, "file": one.tag + suffix, "seq_name": one.tag}
                entries.append(file)
                good.append(one)
            text = "[\n" + "".join(f"{entry!r},\n" for entry in entries) + "]\n"
            archive.writestr(f"{name}.txt", text, zipfile.ZIP_DEFLATED)
        if good:
            os.replace(temporary, path)
    finally:
        progress.end()
        remove_if_there(temporary)
    return good, sum(entry["duration"] for entry in entries)


def config_values(folder: str, parts: Sequence[str], labels: Labels, features: int, end: bool) -> dict[str, Any]:
    """The options of a config that name the data."""
    audio = {
        "features": "log_mel_filterbank", "num_feature_filters": features, "window_len": 0.025, "step_len": 0.010,
        "norm_mean": "per_seq", "norm_std_dev": "per_seq",
    }  # fmt: skip
    targets = labels.options | ({"seq_postfix": [0]} if end and labels.kind != "sentencepiece" else {})
    targets |= {"add_eos": True} if end and labels.kind == "sentencepiece" else {}
    root = os.path.abspath(folder)

    def dataset(name: str, order: str) -> dict[str, Any]:
        path = os.path.join(root, f"{name}.zip")
        return {"class": "OggZipDataset", "path": path, "audio": audio, "targets": targets, "seq_ordering": order}

    values: dict[str, Any] = {"data_dir": root, "num_labels": labels.count, "num_features": features}
    values["train"] = dataset("train", "laplace:.1000")
    if "dev" in parts:
        values["dev"] = dataset("dev", "sorted_reverse")
    if "test" in parts:
        values["search_data"] = values["eval"] = dataset("test", "sorted_reverse")
    classes = {"dim": labels.count, "sparse": True, "vocab": {**labels.options}}
    return {**values, "extern_data": {"data": {"dim": features}, "classes": classes}, "target": "classes"}


def parser() -> argparse.ArgumentParser:
    """The options of `data audio`."""
    made = argparse.ArgumentParser(
        prog="data.py audio",
        description="Checks audio files and transcripts, and writes train.zip, dev.zip and test.zip for OggZipDataset,"
        " a vocabulary, references, and data.config with the lines for a config.",
    )
    add = made.add_argument
    add("audio", help="the folder of the audio files; names in the transcripts are below it")
    add("transcripts", help="a table (.tsv, .csv), JSON lines, a Kaldi folder, or a Hugging Face data set")
    add("out", help="a new folder")
    add("--vocab", choices=KINDS, default="characters", help="the kind of labels (characters)")
    add("--vocab_size", type=int, metavar="N", help="the number of labels of bpe and sentencepiece; words: at most")
    add("--end", action="store_true", help="the label 0 ends each text, for attention models (words and pieces)")
    add("--lowercase", action="store_true", help="converts all texts to lower case")
    add("--sample_rate", type=int, metavar="HZ", help="converts all files to this rate")
    add("--mono", action="store_true", help="mixes files of several channels down to one")
    add("--features", type=int, default=80, help="mel features of a frame, in data.config (80)")
    sets.add_set_options(made)
    return made


def run(argv: Sequence[str]) -> None:
    """`data audio`."""
    args = parser().parse_args(argv)
    if args.sample_rate is not None and args.sample_rate < 1000:
        raise ConfigError("--sample_rate", f"must be in Hz, such as 16000, but is {args.sample_rate}")
    if not os.path.isdir(args.audio):
        raise ConfigError(args.audio, "must be the folder of the audio files, but does not exist")
    if args.end and args.vocab == "characters":
        raise ConfigError("--end", "needs labels with an end symbol: --vocab words, bpe or sentencepiece")
    found = sets.good_ones([_safe(one) for one in read_transcripts(args.transcripts, args.audio)], args.skip)
    if args.lowercase:
        found = [Utterance(**{**vars(one), "text": one.text.lower()}) for one in found]
    parts = sets.split_sets(found, args)
    sets.new_folder(args.out)
    labels = Labels(args.vocab, [one.text for one in parts["train"]], args.out, args.vocab_size)
    converter = Converter(args.sample_rate, args.sample_rate is not None, args.mono)
    _write(parts, labels, converter, args, argv)


def _safe(one: Utterance | ConfigError) -> Utterance | ConfigError:
    if isinstance(one, Utterance) and unsafe(one.tag):
        return ConfigError(one.place, f'the name "{one.tag}" must be a path without ".." below the folder')
    return one


def _write(
    parts: dict[str, list[Utterance]],
    labels: Labels,
    converter: Converter,
    args: argparse.Namespace,
    argv: Sequence[str],
) -> None:
    wrong: list[ConfigError] = []
    lines, filled = [], []
    try:
        for name, part in parts.items():
            good, seconds = write_zip(os.path.join(args.out, f"{name}.zip"), name, part, converter, wrong)
            lines.append(f"{name}.zip: {len(good)} utterances, {seconds / 60:.1f} minutes")
            if good:
                sets.write_references(args.out, name, {one.tag: one.text for one in good})
                filled.append(name)
        sets.tell(wrong, args.skip)
        if "train" not in filled:
            raise ConfigError("--skip", f"nothing is left of the {len(parts['train'])} utterances to train on")
    except ConfigError:
        _remove(args.out)
        raise
    text = sets.write_config(
        args.out, config_values(args.out, filled, labels, args.features, args.end), ["audio", *argv]
    )
    print("\n".join(lines))
    print(f"{labels.count} labels ({labels.kind}), {converter.rate} Hz")
    print(f"\nThe lines for a config ({args.out}/data.config):\n\n{text}")


def _remove(folder: str) -> None:
    """Removes the files that were written, since something is wrong."""
    for name in os.listdir(folder):
        remove_if_there(os.path.join(folder, name))
