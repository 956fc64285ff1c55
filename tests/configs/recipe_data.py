"""Small data sets in the file formats of the recipes in configs/."""

import gzip
import io
import pickle
import wave
import zipfile
from pathlib import Path

import numpy as np

from returnn_lite.hdf.writer import HDFWriter

RATE = 16000
WORDS = ["ab", "abc", "ba", "cab"]
CHARS = ["~", " ", "a", "b", "c"]  # the first one ends a text
BPE = ["</s>", "<unk>", "a@@", "b@@", "c@@", "a", "b", "c", "ab@@", "ab"]
AMOUNTS = {"train": 12, "dev": 3, "test": 3}
FEATURES, STATES = 6, 5


def sentence(random: np.random.RandomState) -> str:
    """One to three words."""
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, 4)))


def sentences(seed: int = 1) -> dict[str, list[str]]:
    """Texts of each set."""
    random = np.random.RandomState(seed)
    return {name: [sentence(random) for _ in range(count)] for name, count in AMOUNTS.items()}


def spoken(text: str) -> bytes:
    """A WAV file: a tone of its own for each character, 60 ms."""
    tones = [np.sin(np.arange(int(0.06 * RATE)) * (0.1 + 0.07 * CHARS.index(char))) for char in text]
    noise = np.random.RandomState(len(text)).normal(0.0, 0.05, sum(map(len, tones)))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(((np.concatenate(tones) + noise) * 8000).astype("<i2").tobytes())
    return content.getvalue()


def speech(folder: Path) -> None:
    """train.zip, dev.zip, test.zip for OggZipDataset; chars.txt, bpe.codes, bpe.vocab."""
    for name, texts in sentences().items():
        entries = []
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            for i, text in enumerate(texts):
                entry = {"file": f"{i}.wav", "seq_name": f"{name}/{i}", "text": text, "duration": 0.06 * len(text)}
                file.writestr(f"{name}/{i}.wav", spoken(text))
                entries.append(entry)
            file.writestr(f"{name}.txt", repr(entries))
    (folder / "chars.txt").write_text("".join(f"{char}\n" for char in CHARS))
    (folder / "bpe.codes").write_text("#version: 0.2\na b\na b</w>\n")
    (folder / "bpe.vocab").write_text(repr({label: i for i, label in enumerate(BPE)}))


def frames(folder: Path) -> None:
    """train.hdf, dev.hdf, test.hdf: features and their states."""
    random = np.random.RandomState(1)
    centres = random.normal(0.0, 1.0, (STATES, FEATURES))
    for name, count in AMOUNTS.items():
        with HDFWriter(str(folder / f"{name}.hdf"), dim=FEATURES, ndim=2) as file:
            for i in range(count):
                states = random.randint(0, STATES, random.randint(50, 90)).astype("int32")
                features = (centres[states] + random.normal(0.0, 0.3, (len(states), FEATURES))).astype("float32")
                file.insert(features, f"{name}/{i}", {"classes": states})
        declare_states(folder / f"{name}.hdf")


def declare_states(path: Path) -> None:
    """How many classes there are."""
    import h5py

    with h5py.File(path, "a") as file:
        file["targets"].require_group("size").attrs["classes"] = (STATES, 1)


def texts(folder: Path) -> None:
    """train.txt, dev.txt, test.txt and vocab.txt."""
    for name, lines in sentences().items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "vocab.txt").write_text("".join(f"{label}\n" for label in ["</s>", "<unk>", *WORDS]))


def translations(folder: Path) -> None:
    """source.* and target.*, and their vocabularies; the translation is the reversed sentence in capitals."""
    for name, lines in sentences().items():
        reversed_lines = [" ".join(reversed(line.upper().split())) for line in lines]
        for side, content in (("source", lines), ("target", reversed_lines)):
            with gzip.open(folder / f"{side}.{name}.gz", "wt") as file:
                file.write("".join(f"{line}\n" for line in content))
    for side, words in (("source", WORDS), ("target", [word.upper() for word in WORDS])):
        table = {word: i for i, word in enumerate(["</S>", "<UNK>", *words])}
        (folder / f"{side}.vocab.pkl").write_bytes(pickle.dumps(table))
