"""`returnn-lite data`: what it writes, from all forms of lists, and what it says of mistakes."""

import ast
import gzip
import json
import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from returnn_lite.config import load_config
from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.tools.own_data.command import main
from returnn_lite.tools.own_data.labels import learn_merges, merged
from returnn_lite.vocab import create_vocab
from tests.tools.own_files import tones, write_speech, write_texts, write_wav


@pytest.fixture
def speech(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_speech(tmp_path)


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_texts(tmp_path)


def entries(name, folder="data"):
    """The list in the zip file of a set."""
    with zipfile.ZipFile(f"{folder}/{name}.zip") as archive:
        return ast.literal_eval(archive.read(f"{name}.txt").decode())


def all_texts(folder="data"):
    return {e["seq_name"]: e["text"] for name in ("train", "dev", "test") for e in entries(name, folder)}


# --- speech ---


def test_sets_references_and_the_lines_of_a_config(speech, capsys):
    assert main(["audio", "wavs", "transcripts.tsv", "data", "--dev", "3", "--test", "0.1"]) == 0
    assert [len(entries(name)) for name in ("train", "dev", "test")] == [15, 3, 2] and all_texts() == speech
    refs = ast.literal_eval(Path("data/dev.refs.py").read_text())
    assert refs == {e["seq_name"]: e["text"] for e in entries("dev")}
    config = load_config(["data/data.config"])
    shown = capsys.readouterr().out
    assert "15 utterances" in shown and "4 labels (characters), 16000 Hz" in shown and "extern_data = {" in shown
    assert config.typed["num_labels"] == 4 and config.typed["data_dir"] == os.path.abspath("data")
    dataset = init_dataset(config.typed["train"], name="train")
    dataset.init_seq_order(1)
    tag = dataset.get_tag(0)
    assert dataset.labels["classes"] == [" ", "a", "b", "c"] and dataset.get_data(0, "data").shape[1] == 80
    assert dataset.get_data(0, "classes").tolist() == [" abc".index(char) for char in speech[tag]]
    with zipfile.ZipFile("data/train.zip") as archive:
        assert archive.read(f"train/{tag}.wav") == Path(f"wavs/{tag}.wav").read_bytes()


def test_the_same_seed_gives_the_same_sets(speech):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["audio", "wavs", "transcripts.tsv", name, "--seed", seed]) == 0
    assert entries("dev", "a") == entries("dev", "b") != entries("dev", "c")


def test_rates_and_channels_are_converted(speech):
    write_wav("wavs/u01.wav", tones(speech["u01"], 8000), rate=8000)
    write_wav("wavs/u02.wav", tones(speech["u02"], 16000), channels=2)
    assert main(["audio", "wavs", "transcripts.tsv", "data", "--mono", "--sample_rate", "16000"]) == 0
    for name in ("train", "dev", "test"):
        with zipfile.ZipFile(f"data/{name}.zip") as archive:
            for entry in entries(name):
                samples, rate = read_audio(archive.read(f"{name}/{entry['file']}"), entry["file"])
                assert rate == 16000 and samples.ndim == 1
                assert len(samples) == round(0.06 * 16000) * len(entry["text"]) == round(entry["duration"] * 16000)
                wanted = tones(entry["text"], 16000) * 20000 / 2**15
                assert np.corrcoef(samples, wanted)[0, 1] > 0.99


def rows(texts):
    return [
        (name, text, "dev" if i < 2 else "test" if i < 4 else "train") for i, (name, text) in enumerate(texts.items())
    ]


def write_list(form, texts):
    """The texts as one of the forms of lists; its name."""
    if form == "csv":
        lines = ["Text;split;path", *(f'"{text}";{split};{name}.wav' for name, text, split in rows(texts))]
        return write(f"list.{form}", "\n".join(lines))
    if form == "csv without names":
        return write("list.csv", "".join(f"{name}.wav,{text}\n" for name, text in texts.items()))
    if form == "tsv":
        lines = ["id\tfile\tsentence", *(f"{name}\t{name}\t{text}" for name, text in texts.items())]
        return write("list.tsv", "\n".join(lines))
    if form == "jsonl":
        objects = ({"audio_filepath": f"{n}.wav", "text": t, "split": s, "id": n} for n, t, s in rows(texts))
        return write("list.jsonl", "\n".join(json.dumps(one) for one in objects))
    os.mkdir("kaldi")
    write("kaldi/text", "".join(f"{name} {text}\n" for name, text in texts.items()))
    write("kaldi/wav.scp", "".join(f"{name} {name}.wav\n" for name in texts))
    return "kaldi"


def write(name, content):
    with open(name, "w") as file:
        file.write(content)
    return name


@pytest.mark.parametrize("form", ["csv", "csv without names", "tsv", "jsonl", "kaldi"])
def test_all_forms_of_lists(speech, form):
    assert main(["audio", "wavs", write_list(form, speech), "data"]) == 0
    assert all_texts() == speech
    if form in ("csv", "jsonl"):
        assert [e["seq_name"] for e in entries("dev")] == ["u00", "u01"]
        assert [e["seq_name"] for e in entries("test")] == ["u02", "u03"]


def test_a_hugging_face_data_set(speech):
    datasets = pytest.importorskip("datasets")
    columns = {"audio": [os.path.abspath(f"wavs/{name}.wav") for name in speech], "text": list(speech.values())}
    table = datasets.Dataset.from_dict({**columns, "id": list(speech)})
    table.cast_column("audio", datasets.Audio(decode=False)).cast_column("audio", datasets.Audio()).save_to_disk("hf")
    assert main(["audio", "wavs", "hf", "data"]) == 0
    assert all_texts() == speech


def test_segments_of_a_recording(speech):
    names, cuts, at = list(speech)[:10], [], 0.0
    for name in names:
        cuts.append(f"{name} all {at:.3f} {at + 0.06 * len(speech[name]):.3f}\n")
        at += 0.06 * len(speech[name])
    write_wav("wavs/all.wav", np.concatenate([tones(speech[name], 16000) for name in names]))
    os.mkdir("kaldi")
    write("kaldi/text", "".join(f"{name} {speech[name]}\n" for name in names))
    write("kaldi/wav.scp", "all all.wav\n")
    write("kaldi/segments", "".join(cuts))
    assert main(["audio", "wavs", "kaldi", "data"]) == 0
    assert all(abs(e["duration"] - 0.06 * len(e["text"])) < 1e-3 for e in entries("train"))


def test_what_is_wrong_is_left_out_where_that_is_wanted(speech, capsys):
    write_wav("wavs/u03.wav", np.zeros(100))
    os.remove("wavs/u05.wav")
    assert main(["audio", "wavs", "transcripts.tsv", "data"]) == 1
    assert not os.path.exists("data") or not os.listdir("data")
    assert main(["audio", "wavs", "transcripts.tsv", "data", "--skip", "--dev", "3", "--test", "3"]) == 0
    err = capsys.readouterr().err
    assert "left out: transcripts.tsv:6: audio file" in err and "u03.wav: is silent" in err
    assert set(all_texts()) == set(speech) - {"u03", "u05"}


# --- labels ---


def test_merges_are_those_of_the_definition():
    rng = np.random.RandomState(2)
    words = Counter("".join(rng.choice(list("abc"), rng.randint(1, 7))) for _ in range(200))
    parts, wanted = {word: [*word[:-1], word[-1] + "</w>"] for word in words}, []
    for _ in range(25):  # counts all pairs anew each time
        pairs = Counter()
        for word, split in parts.items():
            for pair in zip(split, split[1:], strict=False):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        wanted.append(best)
        parts = {word: merged(split, best) for word, split in parts.items()}
    assert learn_merges(words, 25) == wanted and merged(list("aaa"), ("a", "a")) == ["aa", "a"]


@pytest.mark.parametrize("vocab, size", [("words", None), ("words", "5"), ("bpe", "12"), ("sentencepiece", "9")])
def test_vocabularies(speech, vocab, size):
    if vocab == "sentencepiece":
        pytest.importorskip("sentencepiece")
    options = ["--vocab", vocab, *(["--vocab_size", size] if size else []), "--end"]
    assert main(["audio", "wavs", "transcripts.tsv", "data", *options]) == 0
    config = load_config(["data/data.config"])
    made = create_vocab(config.typed["train"]["targets"])
    assert made.num_labels == config.typed["num_labels"] == config.typed["extern_data"]["classes"]["dim"]
    assert made.num_labels <= int(size or 100) and made.labels[0] == "</s>"
    for text in speech.values():
        ids = made.get_seq(text)
        assert ids[-1] == 0 and 0 not in ids[:-1]
        if vocab == "bpe":
            assert made.get_seq_labels(ids[:-1]).replace("@@ ", "") == text


# --- texts ---


def test_a_language_model(texts, capsys):
    assert main(["text", "sentences.txt", "lm", "--vocab", "bpe", "--vocab_size", "11", "--dev", "4"]) == 0
    config = load_config(["lm/data.config"])
    dataset = init_dataset(config.typed["train"], name="train")
    dataset.init_seq_order(1)
    assert dataset.num_seqs == 34 and "dev: 4 sentences" in capsys.readouterr().out
    labels = dataset.labels["data"]
    assert labels[:2] == ["</s>", "<unk>"] and len(labels) == config.typed["num_labels"] <= 11
    ids = dataset.get_data(0, "data")
    assert ids[-1] == 0 and " ".join(labels[i] for i in ids[:-1]).replace("@@ ", "") in texts


@pytest.mark.parametrize("form", ["files", "tsv", "csv"])
def test_pairs(texts, form):
    if form != "files":
        pairs = zip(texts, Path("target.txt").read_text().splitlines(), strict=True)
        mark = "\t" if form == "tsv" else ","
        write(f"pairs.{form}", "".join(f"{a}{mark}{b}\n" for a, b in (("source", "target"), *pairs)))
    given = ["source.txt", "target.txt"] if form == "files" else [f"pairs.{form}"]
    assert main(["text", *given, "pairs", "--vocab", "words"]) == 0
    config = load_config(["pairs/data.config"])
    dataset = init_dataset(config.typed["dev"], name="dev")
    dataset.init_seq_order(1)
    refs = ast.literal_eval(Path("pairs/dev.refs.py").read_text())
    table = str.maketrans("abc", "xyz")
    for i in range(dataset.num_seqs):
        sides = [[dataset.labels[key][j] for j in dataset.get_data(i, key)] for key in ("data", "classes")]
        assert sides[0][-1] == sides[1][-1] == "</S>" and dataset.get_tag(i) in refs
        assert " ".join(sides[0][:-1]).translate(table) == " ".join(sides[1][:-1]) == refs[dataset.get_tag(i)]
    with open("pairs/target.vocab.pkl", "rb") as file:
        assert pickle.load(file)["</S>"] == 0
    with gzip.open("pairs/source.train.gz", "rt") as file:
        assert len(file.readlines()) == 36


def test_small_letters(texts):
    write("big.txt", "AB c\nD ef\nG h\n")
    assert main(["text", "big.txt", "lm", "--lowercase"]) == 0
    assert set(Path("lm/vocab.txt").read_text()) <= set("abcdefgh\n</>suk n")
