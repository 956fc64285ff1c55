"""Word error rates, and the references for them from a dataset."""

import gzip

import pytest

pytest.importorskip("rapidfuzz")

from returnn_lite.tools.dump_raw_strings import main as dump_texts
from returnn_lite.tools.word_error_rate import main

HYPS = {"a": "the cat sat", "b": "on", "c": ""}
REFS = {"a": "the cat sat down", "b": "on a mat", "c": "", "d": "more"}


def plain_distance(a, b):
    """Levenshtein's distance by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        plain_distance(a[1:], b) + 1, plain_distance(a, b[1:]) + 1, plain_distance(a[1:], b[1:]) + (a[0] != b[0])
    )


@pytest.fixture
def write(tmp_path):
    def write(name, value):
        path = tmp_path / name
        with gzip.open(path, "wt") if name.endswith(".gz") else open(path, "w") as file:
            file.write(value if isinstance(value, str) else repr(value))
        return str(path)

    return write


def test_rate(write, tmp_path, capsys):
    out = tmp_path / "wer"
    assert main(["--hyps", write("h", HYPS), "--refs", write("r", REFS), "--out", str(out)]) == 0
    wrong = sum(plain_distance(HYPS[tag].split(), REFS[tag].split()) for tag in HYPS)
    assert out.read_text() == f"{100 * wrong / 7:.2f}\n" == "42.86\n"
    assert capsys.readouterr().out == "WER 42.86 %: 3 errors in 7 words, 2 of 3 sequences wrong\n"


def test_insertions_may_give_more_than_all(write, capsys):
    assert main(["--hyps", write("h", {"a": "x y z"}), "--refs", write("r", {"a": "z"})]) == 0
    assert "WER 200.00 %" in capsys.readouterr().out


def test_n_best_lists_and_compressed_files(write, capsys):
    """The first entry counts, even if another has a higher score."""
    hyps = "{'a': [(-2.5, 'the cat'), (-0.5, 'a dog')], 'b': [(nan, 'x')], 'c': [(-inf, '')]}"
    refs = {"a": "the cat", "b": "x", "c": ""}
    assert main(["--expect_full", "--hyps", write("h.py.gz", hyps), "--refs", write("r.py.gz", refs)]) == 0
    assert "WER 0.00 %: 0 errors in 3 words" in capsys.readouterr().out


def test_expect_full(write, capsys):
    assert main(["--expect_full", "--hyps", write("h", HYPS), "--refs", write("r", REFS)]) == 1
    assert '--hyps: no hypothesis for 1 of 4 references, such as "d"' in capsys.readouterr().err


@pytest.mark.parametrize("hyps, message", [
    ({"z": "x"}, '--refs: no reference for 1 of 1 sequences, such as "z"'),
    ({"a": 3}, "must be a text or a list [(score, text), …], but is 3 instead"),
    ("not python", "must hold a Python dict"),
    ("__import__('os').getcwd()", "must hold a Python dict"),
])  # fmt: skip
def test_errors(write, capsys, hyps, message, tmp_path):
    out = tmp_path / "wer"
    assert main(["--hyps", write("h", hyps), "--refs", write("r", REFS), "--out", str(out)]) == 1
    assert message in capsys.readouterr().err and not out.exists()
    assert main(["--hyps", "no-such-file", "--refs", write("r", REFS)]) == 1
    assert "there is no file no-such-file" in capsys.readouterr().err


def test_references_from_a_dataset(write, tmp_path, capsys):
    write("lm.txt", "the cat\nsat\n")
    vocab = {"class": "Utf8ByteTargets"}
    options = {"class": "LmDataset", "corpus_file": str(tmp_path / "lm.txt"), "orth_vocab": vocab}
    config = write("my.config", f"#!rnn.py\ntrain = {options!r}\ndev = dict(train)\n")
    hyps = write("h", {"line-0": "t h e _ c a t", "line-1": "s a"})
    assert main(["--hyps", hyps, "--config", config, "--dataset", "dev", "--key", "data"]) == 0
    out = capsys.readouterr().out
    assert out == "WER 22.22 %: 2 errors in 9 words, 2 of 2 sequences wrong\n"
    assert dump_texts(["--config", config, "--out", str(tmp_path / "refs"), "--key", "data"]) == 0
    assert (tmp_path / "refs").read_text() == "{\n'line-0': 't h e   c a t',\n'line-1': 's a t',\n}\n"
    assert dump_texts(["--dataset", repr(options), "--out", str(tmp_path / "refs2")]) == 1
    assert "--key: must be a key with texts" in capsys.readouterr().err
    assert dump_texts(["--out", str(tmp_path / "refs2")]) == 1
    assert "either --config or --dataset must be given" in capsys.readouterr().err
    assert not (tmp_path / "refs2").exists()


def test_texts_of_strings_and_bytes(tmp_path, capsys):
    seqs = "[{'raw': np.array('so it is'), 'orth': np.frombuffer(b'as bytes', 'uint8')}]"
    dataset = f"{{'class': 'StaticDataset', 'data': (lambda np: {seqs})(__import__('numpy'))}}"
    for key, text in ((None, "so it is"), ("orth", "as bytes")):
        args = ["--dataset", dataset, "--out", str(tmp_path / "texts.py.gz")] + (["--key", key] if key else [])
        assert dump_texts(args) == 0
        assert gzip.open(tmp_path / "texts.py.gz", "rt").read() == f"{{\n'seq-0': {text!r},\n}}\n"
