"""Word error rates, and the references for them from a dataset."""

import gzip
import random
import sys

import pytest

from returnn_lite.tools.dump_raw_strings import main as dump_texts
from returnn_lite.tools.word_error_rate import main
from returnn_lite.tools.word_errors import count_errors, edit_steps, joined_pieces, own_steps, word_distance

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
    assert capsys.readouterr().out.splitlines() == [
        "WER 42.86 %: 3 errors in 7 words, 2 of 3 sequences wrong",
        "0 substitutions (0.00 %), 0 insertions (0.00 %), 3 deletions (42.86 %); sentence errors 66.67 %",
        "worst words:", "  a  1 of 1 wrong: (nothing) 1", "  down  1 of 1 wrong: (nothing) 1",
        "  mat  1 of 1 wrong: (nothing) 1",
    ]  # fmt: skip


def test_kinds_of_errors_and_the_worst_words(write, capsys):
    hyps = {"a": "x b c e", "b": "x b x", "c": "b c q"}
    refs = {"a": "a b c", "b": "a b c", "c": "a b c"}
    assert main(["--hyps", write("h", hyps), "--refs", write("r", refs), "--worst", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "WER 66.67 %: 6 errors in 9 words, 3 of 3 sequences wrong",
        "3 substitutions (33.33 %), 2 insertions (22.22 %), 1 deletions (11.11 %); sentence errors 100.00 %",
        "worst words:", "  a  3 of 3 wrong: x 2, (nothing) 1", "  c  1 of 3 wrong: x 1", "inserted: e 1, q 1",
    ]  # fmt: skip


def test_the_number_of_errors_is_the_distance():
    rng = random.Random(1)
    for _ in range(50):
        hyp, ref = ([rng.choice("abc") for _ in range(rng.randint(0, 5))] for _ in range(2))
        found = count_errors({"x": hyp}, {"x": ref}, own_steps)
        assert found.errors == plain_distance(hyp, ref)
        assert len(ref) - found.deletions + found.insertions == len(hyp)


def test_rapidfuzz_gives_the_same_steps():
    pytest.importorskip("rapidfuzz")
    rng = random.Random(2)
    assert edit_steps() is not own_steps
    for _ in range(500):
        hyp, ref = ([rng.choice("abcd") for _ in range(rng.randint(0, 12))] for _ in range(2))
        assert edit_steps()(hyp, ref) == own_steps(hyp, ref)


def test_without_rapidfuzz(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    assert edit_steps() is own_steps and word_distance()(["a", "b"], ["b", "c", "d"]) == 3
    assert main(["--hyps", write("h", HYPS), "--refs", write("r", REFS)]) == 0
    assert capsys.readouterr().out.startswith("WER 42.86 %: 3 errors in 7 words, 2 of 3 sequences wrong\n")


def test_end_symbols_characters_and_pieces(write, capsys):
    hyps, refs = write("h", {"a": "th@@ e c@@ at", "b": "on"}), write("r", {"a": "the cut </s>", "b": "on </s> </s>"})
    assert main(["--hyps", hyps, "--refs", refs, "--join_pieces", "--metrics", "wer", "cer", "--worst", "0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("WER 33.33 %: 1 errors in 3 words") and shown[2].startswith("CER 11.11 %: 1 errors in 9")
    assert main(["--hyps", hyps, "--refs", refs, "--join_pieces", "--end_symbols"]) == 0
    assert "4 errors in 6 words" in capsys.readouterr().out
    assert joined_pieces("▁the ▁c at") == "the cat" and joined_pieces("a@@ b") == "ab"


def test_bleu_and_chrf(write, capsys):
    sacrebleu = pytest.importorskip("sacrebleu")
    hyps = {"a": "the cat sat on the mat </s>", "b": "a dog barks at night"}
    refs = {"b": "the dog barks at night", "a": "the cat sat on a mat"}
    options = ["--hyps", write("h", hyps), "--refs", write("r", refs)]
    assert main([*options, "--metrics", "bleu", "chrf"]) == 0
    shown = capsys.readouterr().out.splitlines()
    texts = ["the cat sat on the mat", "a dog barks at night"], [["the cat sat on a mat", "the dog barks at night"]]
    assert shown[0].startswith(f"BLEU {sacrebleu.corpus_bleu(*texts).score:.2f}  (") and "tok:13a" in shown[0]
    assert shown[1].startswith(f"chrF2 {sacrebleu.corpus_chrf(*texts).score:.2f}  (")
    assert main([*options, "--metrics", "bleu", "--out", "x"]) == 1
    assert capsys.readouterr().err == "--out: needs one of the metrics wer and cer\n"


def test_bleu_without_sacrebleu(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert main(["--hyps", write("h", {"a": "x"}), "--refs", write("r", {"a": "x"}), "--metrics", "bleu"]) == 1
    assert 'BLEU and chrF need sacrebleu: pip install "returnn-lite[bleu]"' in capsys.readouterr().err


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
    assert "file no-such-file does not exist" in capsys.readouterr().err


def test_references_from_a_dataset(write, tmp_path, capsys):
    write("lm.txt", "the cat\nsat\n")
    vocab = {"class": "Utf8ByteTargets"}
    options = {"class": "LmDataset", "corpus_file": str(tmp_path / "lm.txt"), "orth_vocab": vocab}
    config = write("my.config", f"#!rnn.py\ntrain = {options!r}\ndev = dict(train)\n")
    hyps = write("h", {"line-0": "t h e _ c a t", "line-1": "s a"})
    assert main(["--hyps", hyps, "--config", config, "--dataset", "dev", "--key", "data"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("WER 22.22 %: 2 errors in 9 words, 2 of 2 sequences wrong\n")
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
