"""Tools that write lexica and HDF files of texts."""

import gzip
import itertools
import xml.etree.ElementTree as ET

import h5py
import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.tools.bpe_lexicon import main as lexicon
from returnn_lite.tools.bpe_lexicon import splits
from returnn_lite.tools.translation_hdf import main as translation

# --- lexicon ---


def all_splits(word, labels):
    """By trying all borders."""
    found = []
    for borders in itertools.product([False, True], repeat=len(word) - 1):
        cuts = [0, *(i + 1 for i, cut in enumerate(borders) if cut), len(word)]
        pieces = [word[a:b] for a, b in itertools.pairwise(cuts)]
        pieces = tuple([piece + "@@" for piece in pieces[:-1]] + pieces[-1:])
        found += [pieces] if all(piece in labels for piece in pieces) else []
    return sorted(found, key=lambda pieces: (len(pieces), pieces))


def test_all_ways_the_shortest_first():
    labels = dict.fromkeys(["a@@", "b@@", "ab@@", "ba@@", "a", "b", "ab", "aba@@", "bab"], 0)
    for word in ("a", "ab", "abab", "ababab", "x"):
        assert splits(word, labels, 1000) == all_splits(word, labels)
        assert splits(word, labels, 3) == all_splits(word, labels)[:3]
    assert splits("", labels, 5) == []


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vocab").write_text(repr({"</s>": 0, "<UNK>": 1, "a@@": 2, "b@@": 3, "a": 4, "b": 5, "ab": 6}))
    (tmp_path / "words").write_text("ab aab\nab x&y\n")
    (tmp_path / "codes").write_text("#version: 0.2\na b</w>\n")
    with gzip.open(tmp_path / "x.gz", "wt") as file:
        file.write("ab a\nb q\n\n")
    (tmp_path / "y").write_text("a\na b\nb\n")
    return tmp_path


def test_lexicon(texts, capsys):
    assert lexicon(["--vocab", "vocab", "--words", "words", "--out", "out"]) == 0
    assert (texts / "out").read_text() == "ab\tab\nab\ta@@ b\naab\ta@@ ab\naab\ta@@ a@@ b\n"
    assert capsys.readouterr().out == "out: 2 words, 4 ways to write them; 1 cannot be written, such as 'x&y'\n"
    assert lexicon(["--vocab", "vocab", "--words", "words", "--out", "one", "--codes", "codes"]) == 0
    assert (texts / "one").read_text() == "ab\tab\naab\ta@@ ab\n"
    assert lexicon(["--vocab", "vocab", "--words", "words", "--out", "out.xml.gz", "--most", "1"]) == 0
    with gzip.open(texts / "out.xml.gz") as file:
        root = ET.parse(file).getroot()
    assert [(lemma.findtext("orth"), lemma.findtext("phon")) for lemma in root.iter("lemma")] == [
        ("ab", "ab"), ("aab", "a@@ ab"),
    ]  # fmt: skip
    assert [e.text for e in root.iter("symbol")] == ["</s>", "<UNK>", "a@@", "b@@", "a", "b", "ab"]


# --- pairs ---

PAIR = ["--source", "x.gz", "--target", "y", "--source_vocab", "vocab", "--target_vocab", "vocab", "--out", "x.hdf"]


@pytest.mark.parametrize("compression", [[], ["--compression", "gzip"]])
def test_pairs(texts, compression, capsys):
    assert translation([*PAIR, *compression]) == 0
    assert capsys.readouterr().out == "x.hdf: 3 pairs, 7 and 7 labels\n"
    dataset = init_dataset({"class": "HDFDataset", "files": ["x.hdf"]})
    dataset.init_seq_order(1)
    found = [
        (dataset.get_tag(i), *(dataset.get_data(i, key).tolist() for key in ("data", "classes"))) for i in range(3)
    ]
    assert found == [("line-1", [6, 4, 0], [4, 0]), ("line-2", [5, 1, 0], [4, 5, 0]), ("line-3", [0], [5, 0])]
    assert dataset.labels["classes"] == dataset.labels["data"] == ["</s>", "<UNK>", "a@@", "b@@", "a", "b", "ab"]
    with h5py.File("x.hdf") as file:
        assert file["inputs"].compression == (compression[1] if compression else None)


def test_options_of_a_vocabulary_and_no_end(texts):
    vocab = "{'class': 'CharacterTargets', 'labels': ['a', 'b', ' '], 'unknown_label': None}"
    assert translation(["--source", "y", "--target", "y", *PAIR[4:], "--source_vocab", vocab, "--number", "1"]) == 1
    (texts / "y").write_text("ab a")
    options = ["--source", "y", "--target", "y", *PAIR[4:], "--source_vocab", vocab, "--eos", "", "--tag", "t"]
    assert translation(options) == 0
    with h5py.File("x.hdf") as file:
        assert file["inputs"][:].tolist() == [0, 1, 2, 0] and file["targets/data/classes"][:].tolist() == [6, 4]
        assert file["seqTags"][:].tolist() == [b"t1"]


@pytest.mark.parametrize("main, arguments, message", [
    (lexicon, ["--vocab", "none", "--words", "words", "--out", "o"], "--vocab"),
    (lexicon, ["--vocab", "vocab", "--words", "empty", "--out", "o"], "--words: empty holds no words"),
    (lexicon, ["--vocab", "vocab", "--words", "odd", "--out", "o"], "none of the 1 words can be written"),
    (lexicon, ["--vocab", "vocab", "--words", "words", "--out", "o", "--most", "0"], "--most: must be at least 1"),
    (translation, [*PAIR, "--target", "short"], "short: has 1 lines, but x.gz has more"),
    (translation, [*PAIR, "--source", "none"], "--source: none cannot be read: No such file"),
    (translation, [*PAIR, "--eos", "<end>"], '--source_vocab: vocab has no label "<end>"'),
    (translation, [*PAIR, "--target_vocab", "words_only"], 'y:1: "a" is not in the vocabulary'),
    (translation, [*PAIR, "--source", "empty", "--target", "empty"], "--source: empty has no lines"),
    (translation, [*PAIR, "--source_vocab", "{'class': 'Vocab'}"], '_vocab["class"]: unknown vocabulary "Vocab"'),
])  # fmt: skip
def test_errors(texts, main, arguments, message, capsys):
    (texts / "empty").write_text("")
    (texts / "odd").write_text("xyz")
    (texts / "short").write_text("a\n")
    (texts / "words_only").write_text("</s>\nword\n")
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and not (texts / "x.hdf").exists()
