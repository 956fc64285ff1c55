"""Vocabularies: texts to classes and back, files, and what is refused."""

import gzip
import pickle

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.vocab import create_vocab, vocab_of_labels


def test_words(tmp_path):
    vocab = create_vocab({"labels": ["a", "b", "UNK"], "seq_postfix": [0], "eos_label": "a", "bos_label": 1})
    assert vocab.get_seq("b  x a") == [1, 2, 0, 0] and vocab.get_seq_labels([1, 2]) == "b UNK"
    assert (vocab.num_labels, vocab.unknown_id, vocab.eos_id, vocab.bos_id, vocab.pad_id) == (3, 2, 0, 1, None)
    spaced = create_vocab({"labels": ["a b", "a", "c"], "unknown_label": None, "single_whitespace_split": True})
    assert spaced.get_seq("a b c a") == [0, 2, 1]
    with pytest.raises(ConfigError, match="3 labels, but a class index is 3"):
        vocab.get_seq_labels([3])
    with pytest.raises(ConfigError, match='"d" is not in the vocabulary, and unknown_label is not set'):
        spaced.get_seq("d")


def test_files(tmp_path):
    table = {"b": 1, "a": 0, "A": 0, "UNK": 2}
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(table))
    (tmp_path / "v.gz").write_bytes(gzip.compress(repr(table).encode()))
    (tmp_path / "v.txt").write_text("a\nb\nUNK\n")
    for name in ("v.pkl", "v.gz", "v.txt"):
        vocab = create_vocab({"vocab_file": str(tmp_path / name)})
        assert vocab.labels == ["a", "b", "UNK"] and vocab.get_seq("b a") == [1, 0]
    (tmp_path / "special.txt").write_text("{'unknown_label': 'b'}")
    vocab = create_vocab(
        {"vocab_file": str(tmp_path / "v.txt"), "special_symbols_via_file": str(tmp_path / "special.txt")}
    )
    assert vocab.get_seq("x") == [1]


def test_characters_and_bytes():
    chars = create_vocab({"class": "CharacterTargets", "labels": ["a", " ", "@"]})
    assert chars.get_seq("a ä") == [0, 1, 2] and chars.get_seq_labels([0, 1, 0]) == "a a"
    text = create_vocab({"class": "Utf8ByteTargets"})
    assert text.get_seq("ü") == [195, 188] and text.get_seq_labels([195, 188, 195]) == "ü\ufffd"
    kinds = [type(vocab_of_labels(labels)).__name__ for labels in (["a"], ["a", "bc"], [chr(i) for i in range(256)])]
    assert kinds == ["CharacterTargets", "Vocabulary", "Utf8ByteTargets"]


def bpe(
    tmp_path, codes="#version: 0.2\nl o\nlo w</w>\ne r</w>\n", labels=("l@@", "o@@", "lo@@", "low", "w", "er", "UNK")
):
    (tmp_path / "codes").write_text(codes)
    return create_vocab({"bpe_file": str(tmp_path / "codes"), "labels": list(labels)})


def test_what_only_unicode_calls_a_line_end_is_a_label(tmp_path):
    (tmp_path / "chars").write_bytes("@\r\na\n\u2028\n\x85\nb\n".encode())
    vocab = create_vocab({"class": "CharacterTargets", "vocab_file": str(tmp_path / "chars")})
    assert vocab.labels == ["@", "a", "\u2028", "\x85", "b"] and vocab.get_seq("b\u2028") == [4, 2]


def test_byte_pairs(tmp_path):
    vocab = bpe(tmp_path)
    assert list(vocab.symbols("low lower")) == ["low", "lo@@", "w@@", "er"]
    assert vocab.get_seq_labels(vocab.get_seq("low lo")) == "low l@@ UNK"
    assert list(vocab.symbols("$low { low } low")) == ["$low", "{", "low", "}", "low"]
    assert list(bpe(tmp_path, labels=("lo@@", "w", "UNK")).symbols("low")) == ["lo@@", "w"]  # undone
    old = bpe(tmp_path, "l o\nw </w>\nlo w</w>\n")
    assert list(old.symbols("low w")) == ["low", "w"]
    twice = bpe(tmp_path, "#version: 0.2\nl o\nl o\n\nl o\nlo w</w>\n")  # later merges count where others are repeated
    assert list(twice.symbols("low")) == ["low"]
    assert pickle.loads(pickle.dumps(vocab)).get_seq("low") == [3]
    for codes, message in (("#version: 0.3\n", "has the version 0.3"), ("a b c\n", "codes:1: must be two parts")):
        with pytest.raises(ConfigError, match=message):
            bpe(tmp_path, codes)


def test_random_pieces():
    labels = ["a@@", "b@@", "ab@@", "c", "bc", "abc", "UNK"]
    options = {"class": "SamplingBytePairEncoding", "labels": labels}
    assert create_vocab({**options, "breadth_prob": 0}).get_seq("abc x") == [5, 6]
    vocab = create_vocab({**options, "breadth_prob": 0.5})
    drawn = [tuple(vocab.get_seq("abc")) for _ in range(50)]
    assert set(drawn) == {(5,), (0, 4), (0, 1, 3), (2, 3)}
    vocab.set_random_seed(0)
    assert [tuple(vocab.get_seq("abc")) for _ in range(50)] == drawn
    prefix = {"labels": ["▁a", "▁ab", "b", "c", "bc"], "word_prefix_symbol": "▁", "unknown_label": None}
    vocab = create_vocab({**options, **prefix, "breadth_prob": 0})
    assert vocab.get_seq_labels(vocab.get_seq("abc")) == "▁ab c"
    with pytest.raises(ConfigError, match='no BPE-split for word "x"'):
        vocab.get_seq("x")


def test_sentence_pieces(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=15, minloglevel=2
    )
    options = {"class": "SentencePieces", "model_file": str(tmp_path / "m.model"), "add_eos": True}
    vocab = create_vocab(options)
    ids = vocab.get_seq("the mat")
    assert ids[-1] == vocab.eos_id and vocab.text_of(ids) == "the mat" and "▁" in vocab.get_seq_labels(ids)
    assert pickle.loads(pickle.dumps(vocab)).get_seq("the mat") == ids
    (tmp_path / "m.model").write_bytes(b"no model")
    for change, message in (
        ({}, "cannot be read by sentencepiece"),
        ({"model_file": "none"}, "file none does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            create_vocab({**options, **change})


@pytest.mark.parametrize("options, message", [
    (3, "vocab: must be a dict or a vocabulary, but is 3"),
    ({"class": "Vocabullary"}, 'unknown vocabulary "Vocabullary"; did you mean "Vocabulary"'),
    ({"labels": ["a"], "unknwon_label": "a"}, "unknown option of Vocabulary; did you mean .unknown_label."),
    ({"class": "SamplingBytePairEncoding", "labels": ["a"]}, "needs the option breadth_prob"),
    ({"class": "BytePairEncoding", "labels": ["a"]}, "needs the option bpe_file"),
    ({}, "needs `vocab_file` or `labels`"),
    ({"labels": ["a"]}, 'vocab: unknown_label: "UNK" is not in the vocabulary'),
    ({"labels": ["a"], "unknown_label": 1}, "unknown_label: must be less than 1"),
    ({"labels": ["a"], "unknown_label": None, "num_labels": 2}, "num_labels: must be 1 as in the file, but is 2"),
    ({"vocab_file": "none.txt"}, "vocab_file: file none.txt does not exist"),
    ({"class": "SentencePieces"}, "needs model_file or model_proto"),
    ({"class": "HuggingFaceTokenizer"}, "needs huggingface_repo_dir or tokenizer"),
])  # fmt: skip
def test_what_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create_vocab(options)


@pytest.mark.parametrize("content, message", [
    (b"{'a': 0, 'b': 2}", "not all indices used, number 1 of 3 has no label"),
    (b"{'a': 0, 'a': 1}", "the lowest index must be 0, but is 1"),
    (b"{'a': 0, 'b': 1, 'a': 2}", r"number 0|lowest index"),
    (b"{'a': 0,\n'b' 1}", ":2: must hold a Python dict label -> index"),
    (b"{'a': [}", "must hold a Python dict label -> index"),
    (b"{['a']: 0}", "must hold a Python dict label -> index: unhashable"),
    (b"{'a': 'b'}", "the index of 'a' must be a number >= 0, but is 'b'"),
    (b"{'a': -1}", "the index of 'a' must be a number >= 0, but is -1"),
    (b"{'a': 0.0}", "the index of 'a' must be a number >= 0, but is 0.0"),
    (b"{7: 0}", "labels must be texts, but one is 7"),
    (b"{}", "holds no labels"),
    (b"", "holds no labels"),
    (b"a\nb\xe4r\n", r":2: must be UTF-8 text, but has an invalid continuation byte 0xe4"),
    (b"\xff\n", "must be UTF-8 text"),
])  # fmt: skip
def test_bad_files(tmp_path, content, message):
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        create_vocab({"vocab_file": str(tmp_path / "v.txt"), "unknown_label": None})


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "v.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ConfigError, match="but holds os.system"):
        create_vocab({"vocab_file": str(tmp_path / "v.pkl")})
