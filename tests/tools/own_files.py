"""Own audio files and texts, small: tones for characters, pairs of sentences that are the same in other letters."""

import wave
from pathlib import Path

import numpy as np

WORDS = ["ab", "abc", "ba", "cab"]


def sentence(rng):
    """One to three words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))


def tones(text, rate):
    """A tone of its own for each character, 60 ms."""
    times = np.arange(int(0.06 * rate)) / rate
    parts = [0.5 * np.sin(2 * np.pi * times * (300 + 200 * " abc".index(char))) for char in text]
    return np.concatenate(parts) + np.random.RandomState(len(text)).randn(len(text) * len(times)) * 0.01


def write_wav(path, samples, rate=16000, channels=1):
    """A file of 16 bits; of several channels all the same."""
    data = np.repeat((np.asarray(samples) * 20000).astype("<i2")[:, None], channels, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data.tobytes())


def write_speech(folder: Path, number=20):
    """`wavs/`, `transcripts.tsv`; the texts by name."""
    rng, texts = np.random.RandomState(0), {}
    (folder / "wavs").mkdir()
    for i in range(number):
        texts[f"u{i:02}"] = sentence(rng)
        write_wav(folder / "wavs" / f"u{i:02}.wav", tones(texts[f"u{i:02}"], 16000))
    (folder / "transcripts.tsv").write_text("".join(f"{name}.wav\t{text}\n" for name, text in texts.items()))
    return texts


def write_texts(folder: Path, number=40):
    """`source.txt`, `target.txt`, `sentences.txt`."""
    rng = np.random.RandomState(1)
    lines = [sentence(rng) for _ in range(number)]
    (folder / "source.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "target.txt").write_text("".join(f"{line.translate(str.maketrans('abc', 'xyz'))}\n" for line in lines))
    (folder / "sentences.txt").write_text("".join(f"{line}\n\n" for line in lines))
    return lines
