"""Synthesise spoken numbers by espeak-ng: `make_data.py FOLDER` writes train.zip, dev.zip, test.zip (OggZipDataset).

A number of 100 to 999,999 is read out word by word ("seven hundred forty two thousand nineteen"), with an accent, a
speaker, a speed and a pitch chosen at random, with noise of varying level. No speaker and no number is in two of the
three sets. Also written:

    words.txt       a label a line: 0 is the end label `</s>`, then the 29 words
    NAME.refs       {tag: text} of each set, as a Python dict
"""

from __future__ import annotations

import argparse
import io
import math
import os
import random
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

ESPEAK = "espeak-ng"
RATE = 22050  # Hz, what it gives
HEADER = 44  # bytes before the samples in what it writes to a pipe

SPEAKERS = {
    "train": "m1 m2 m3 m4 m6 m8 f1 f2 f4 Andy Annie AnxiousAndy Gene Jacky Lee Mario Tweaky croak klatt klatt4".split(),
    "dev": ["m5", "f5", "klatt2"],
    "test": ["m7", "f3", "Michael", "grandma", "klatt3"],
}
ACCENTS = ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029"]
SPEEDS = (120, 240)  # words per minute
PITCHES = (20, 80)  # of 0 to 99
SNRS = (0, 20)  # signal to noise, dB
SMALLEST, LARGEST = 100, 999_999
NUM_UTTERANCES = {"train": 1500, "dev": 100, "test": 300}

ONES = "one two three four five six seven eight nine ten".split()
ONES += "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
LABELS = ["</s>", *ONES, *TENS, "hundred", "thousand"]


@dataclass(frozen=True)
class Utterance:
    """What is said, and how."""

    tag: str
    number: int
    accent: str
    speaker: str
    speed: int
    pitch: int
    snr: int

    @property
    def text(self) -> str:
        """The number's words."""
        return " ".join(words(self.number))


Voice = Callable[[Utterance], np.ndarray]


def words(number: int) -> list[str]:
    """A number of 0 to 999,999 as one says it; nothing for 0."""
    thousands, rest = divmod(number, 1000)
    hundreds, rest = divmod(rest, 100)
    tens, ones = divmod(rest, 10) if rest >= 20 else (0, rest)
    return [
        *((*words(thousands), "thousand") if thousands else ()),
        *((ONES[hundreds - 1], "hundred") if hundreds else ()),
        *((TENS[tens - 2],) if tens else ()),
        *((ONES[ones - 1],) if ones else ()),
    ]


def new_numbers(rng: random.Random) -> Iterator[int]:
    """Numbers without end, each once; short ones as often as long ones."""
    known = set()
    while True:
        number = int(math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST + 1))))
        if number not in known:
            known.add(number)
            yield number


def plan(num_utterances: dict[str, int], seed: int) -> dict[str, list[Utterance]]:
    """All utterances of the sets; the same seed gives the same."""
    rng = random.Random(seed)
    numbers = new_numbers(rng)
    return {
        name: [
            Utterance(
                tag=f"{name}-{i:05d}",
                number=next(numbers),
                accent=rng.choice(ACCENTS),
                speaker=rng.choice(SPEAKERS[name]),
                speed=rng.randint(*SPEEDS),
                pitch=rng.randint(*PITCHES),
                snr=rng.randint(*SNRS),
            )
            for i in range(amount)
        ]
        for name, amount in num_utterances.items()
    }


def speak(utterance: Utterance) -> np.ndarray:
    """Its samples, int16 (T,)."""
    how = ["-v", f"{utterance.accent}+{utterance.speaker}", "-s", str(utterance.speed), "-p", str(utterance.pitch)]
    done = subprocess.run([ESPEAK, *how, "--stdout", utterance.text], capture_output=True, check=True)
    return np.frombuffer(done.stdout[HEADER:], "<i2")


def record(utterance: Utterance, voice: Voice) -> tuple[bytes, float]:
    """(an Ogg Vorbis file of the utterance and the noise, its seconds)"""
    samples, content = voice(utterance) / 2**15, io.BytesIO()
    loudness = samples.std() * 10 ** (-utterance.snr / 20)
    noise = np.random.RandomState(utterance.number).normal(0.0, loudness, len(samples))
    soundfile.write(content, (samples + noise) / 2, RATE, format="OGG", subtype="VORBIS")
    return content.getvalue(), len(samples) / RATE


def write_zip(filename: Path, utterances: list[Utterance], voice: Voice) -> float:
    """The layout that OggZipDataset reads: NAME.txt lists the utterances, NAME/ has their audio. Returns seconds."""
    name, entries = filename.stem, []
    unfinished = filename.with_suffix(f".unfinished-{os.getpid()}")
    with zipfile.ZipFile(unfinished, "w") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        recordings = pool.map(partial(record, voice=voice), utterances)
        for utterance, (audio, seconds) in zip(utterances, recordings, strict=True):
            file.writestr(f"{name}/{utterance.tag}.ogg", audio)
            names = {"file": f"{utterance.tag}.ogg", "seq_name": utterance.tag}
            entries.append({"text": utterance.text, "duration": seconds, **names})
        file.writestr(f"{name}.txt", repr(entries))
    unfinished.replace(filename)
    return sum(entry["duration"] for entry in entries)


def make_data(
    folder: Path, *, seed: int = 1, num_utterances: dict[str, int] = NUM_UTTERANCES, voice: Voice = speak
) -> None:
    """Write the files of all sets to `folder`; `voice` gives the samples of an utterance, int16 (T,) at `RATE`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("".join(f"{label}\n" for label in LABELS))
    for name, utterances in plan(num_utterances, seed).items():
        texts = {utterance.tag: utterance.text for utterance in utterances}
        (folder / f"{name}.refs").write_text(repr(texts))
        seconds = write_zip(folder / f"{name}.zip", utterances, voice)
        print(f"{folder / name}.zip: {len(utterances)} numbers, {seconds / 60:.0f} minutes", flush=True)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Let espeak-ng speak numbers, as zip files of audio and texts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    amounts = {"metavar": ("TRAIN", "DEV", "TEST"), "default": list(NUM_UTTERANCES.values())}
    parser.add_argument("--utterances", type=int, nargs=3, **amounts)
    options = parser.parse_args()
    amounts = dict(zip(NUM_UTTERANCES, options.utterances, strict=True))
    make_data(options.folder, seed=options.seed, num_utterances=amounts)


if __name__ == "__main__":
    main()
