"""Datasets of texts."""

import gzip
import pickle

import numpy as np
import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.datasets.text.enwik8 import SUBSETS
from returnn_lite.datasets.text.normalization import TextFunction, parse_orthography, symbols_of
from returnn_lite.errors import ConfigError
from tests.datasets.examples import texts


def made(name, **options):
    return init_dataset({"class": name, **options}, name="toy")


def read(dataset, key="data", **given):
    dataset.init_seq_order(1, **given)
    dataset.load_seqs(0, 100)
    return {dataset.get_tag(i): dataset.get_data(i, key).tolist() for i in range(dataset.num_seqs)}


# --- text functions ---


@pytest.mark.parametrize("value, text, expected", [
    (None, " A  b", " A  b"),
    ("lowercase", "A [B]", "a [b]"),
    ("lowercase_keep_special", "A [B] <Sil> B", "a [B] <Sil> b"),
    ("expand_abbreviations", "Dr. X, best. St. Y", "doctor X, best. saint Y"),
    (["lowercase", "get_replace('a', 'b')"], "A", "b"),
    ("lowercase, get_remove_chars(',/')", "A,B/c", "a b c"),
    (str.upper, "a", "A"),
    ("transliteration_cleaners", "Über  Öl", "uber ol"),
])  # fmt: skip
def test_text_functions(value, text, expected):
    assert TextFunction(value, "x")(text) == expected


@pytest.mark.parametrize("value, message", [
    ("lowercas", "unknown text function 'lowercas'; did you mean"),
    ("open('x')", "must be names or calls of text functions"),
    (lambda text: 3, "must return a text, but returned 3"),
])  # fmt: skip
def test_text_functions_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        TextFunction(value, "x")


def test_symbols():
    assert parse_orthography("a [b]c (d)") == ["a", " ", "[B]", "c", " ", "d", "[END]"]
    assert parse_orthography(" a  b ", word_based=True, prefix=["<s>"], postfix=[]) == ["<s>", "a", "b"]
    assert symbols_of("a[b", word_based=False) == ["a", "[B"]
    assert symbols_of(" a  b ", word_based=True) == ["a", "", "b", ""] and symbols_of(" [x] [y]z", word_based=True) == [
        "[X]",
        "[Y]z",
    ]


# --- LmDataset ---


def lm(folder, **options):
    return made("LmDataset", **{**texts(folder)["LmDataset"], **options})


def test_lines(tmp_path):
    dataset = lm(tmp_path, add_delayed_seq_data=True, delayed_seq_data_start_symbol="c", seq_ordering="sorted")
    assert read(dataset) == {"line-1": [2, 0], "line-0": [1, 2, 0], "line-2": [3, 1, 2, 0]}
    assert read(dataset, "delayed", seq_list=["line-2"]) == {"line-2": [3, 3, 1, 2]}
    assert dataset.get_data_dtype("data") == "int8" and dataset.get_target_list() == ["data"]
    assert read(lm(tmp_path, skip_empty_lines=False))["line-2"] == [0]


def test_replacing(tmp_path):
    (tmp_path / "lm.txt").write_text("a x\ny b\n")
    (tmp_path / "map.json").write_text('{"x": "b c"}')
    options = {"orth_replace_map_file": str(tmp_path / "map.json"), "corpus_file": str(tmp_path / "lm.txt")}
    base = {"orth_symbols_file": str(tmp_path / "symbols.txt"), "word_based": True}
    texts(tmp_path)
    (tmp_path / "lm.txt").write_text("a x\ny b\n")
    skipping = made("LmDataset", **base, **options, error_on_invalid_seq=False)
    assert read(skipping) == {"line-0": [1, 2, 3, 0]} and skipping.num_seqs == 1
    skipping.init_seq_order(1, seq_order=[0, 1])  # as MetaDataset does: its other datasets have as many
    assert skipping.num_seqs == 2
    with pytest.raises(ConfigError, match='sequence "line-1": LmDataset: invalid seq'):
        skipping.get_data(1, "data")
    unknown = made("LmDataset", **base, **options, auto_replace_unknown_symbol=True, unknown_symbol="c")
    assert read(unknown)["line-1"] == [3, 2, 0]
    with pytest.raises(ConfigError, match='sequence "line-1": LmDataset: invalid seq .*, missing orth symbol .y.'):
        read(made("LmDataset", **base, **options))


def test_vocabularies_and_files(tmp_path):
    options = texts(tmp_path)["LmDataset"]
    words = made("LmDataset", corpus_file=options["corpus_file"], orth_vocab={"labels": ["a", "b"], "unknown_label": 1})
    assert read(words) == {"line-0": [0, 1], "line-1": [1], "line-2": [1, 0, 1]}
    (tmp_path / "map.txt").write_text("a 0\nb 1\nc 2\n[END] 3\n")
    symbols = {"orth_symbols_map_file": str(tmp_path / "map.txt"), "word_based": True, "seq_end_symbol": None}
    mapped = made("LmDataset", corpus_file=[options["corpus_file"]] * 2, **symbols)
    assert list(read(mapped).values()) == [[0, 1], [1], [2, 0, 1]] * 2
    (tmp_path / "lm.gz").write_bytes(gzip.compress(b" a \nb"))
    assert read(lm(tmp_path, corpus_file=str(tmp_path / "lm.gz"))) == {"line-0": [1, 0], "line-1": [2, 0]}
    segment = '<segment name="{}"><orth> {} </orth></segment>'
    parts = "".join(segment.format(i, text) for i, text in enumerate(["a", "b  c"]))
    (tmp_path / "corpus.xml").write_text(
        f'<corpus name="c"><recording name="r" audio="x.wav">{parts}</recording></corpus>'
    )
    assert read(lm(tmp_path, corpus_file=lambda: str(tmp_path / "corpus.xml"))) == {
        "line-0": [1, 0],
        "line-1": [2, 3, 0],
    }
    (tmp_path / "tags.txt").write_text("x\ny\nz\n")
    assert list(read(lm(tmp_path, seq_list_file=str(tmp_path / "tags.txt")))) == ["x", "y", "z"]


SYMBOLS = {"word_based": True, "seq_end_symbol": "</s>", "unknown_symbol": "?", "auto_replace_unknown_symbol": True}


@pytest.mark.parametrize("form", ["lines", "dict in a file", "pickle", "dict"])
def test_symbol_maps_with_gaps_and_several_names_for_an_index(tmp_path, form):
    (tmp_path / "lm.txt").write_text("b a\nx\n")
    table = {"<s>": 0, "</s>": 0, "?": 1, "a": 2, "b": 5}
    path = tmp_path / ("map.pkl" if form == "pickle" else "map.txt")
    lines = "".join(f"{symbol} {index}\n" for symbol, index in table.items())
    path.write_bytes(pickle.dumps(table) if form == "pickle" else (lines if form == "lines" else repr(table)).encode())
    value = table if form == "dict" else str(path)
    dataset = made("LmDataset", corpus_file=str(tmp_path / "lm.txt"), orth_symbols_map_file=value, **SYMBOLS)
    assert read(dataset) == {"line-0": [5, 2, 0], "line-1": [1, 0]} and dataset.num_outputs["data"][0] == 6
    assert dataset.labels["data"] == ["<s>", "?", "a", "<3>", "<4>", "b"]


@pytest.mark.parametrize("lines, message", [
    ("a 1\nb 2\n", "the lowest index must be 0, but is 1"),
    ("a 0\nb 1\na 2\n", r"map.txt:3: .a. has the index 0 already, so it cannot have 2"),
    ("a 0\nb\n", "map.txt:2: must be .symbol index., but is .b."),
    ("", "holds no labels"),
])  # fmt: skip
def test_bad_symbol_maps(tmp_path, lines, message):
    (tmp_path / "lm.txt").write_text("a\n")
    (tmp_path / "map.txt").write_text(lines)
    with pytest.raises(ConfigError, match=message):
        made("LmDataset", corpus_file=str(tmp_path / "lm.txt"), orth_symbols_map_file=str(tmp_path / "map.txt"))


LEXICON = """<lexicon><phoneme-inventory>
<phoneme><symbol>SIL</symbol><variation>none</variation></phoneme><phoneme><symbol>A</symbol></phoneme>
<phoneme><symbol>B</symbol></phoneme></phoneme-inventory>
<lemma><orth>[SILENCE]</orth><phon>SIL</phon></lemma><lemma><orth>a</orth><phon>A</phon></lemma>
<lemma><orth>b</orth><phon>B A</phon></lemma></lexicon>"""


def test_phones(tmp_path):
    options = texts(tmp_path)["LmDataset"]
    (tmp_path / "lm.txt").write_text("a b\nb/a\n")
    (tmp_path / "lexicon.xml").write_text(LEXICON)
    plain = {"repetition": 0, "add_silence_between_words": 1, "silence_repetition": 0, "allo_num_states": 1}
    info = {**plain, "lexicon_file": str(tmp_path / "lexicon.xml"), "add_silence_beginning": 0, "add_silence_end": 0}
    dataset = made("LmDataset", corpus_file=options["corpus_file"], phone_info=info, add_random_phone_seqs=1)
    assert read(dataset) == {"line-0": [1, 0, 2, 1], "line-1": [2, 1, 0, 1]}
    assert dataset.labels == {"data": ["SIL", "A", "B"]} and len(dataset.get_data(0, "random0")) == 4
    names = ["A{#+#}@i@f.0 0", "SIL{#+#}@i@f.0 1", "B{#+A}@i.0 2", "A{B+#}@f.0 3"]
    (tmp_path / "tying").write_text("\n".join(names))
    tied = made("LmDataset", corpus_file=options["corpus_file"],
                phone_info={**info, "state_tying_file": str(tmp_path / "tying")})  # fmt: skip
    assert read(tied)["line-0"] == [0, 1, 2, 3]
    (tmp_path / "lm.txt").write_text("a c\n")
    for change, message in [
        ({}, "missing lexicon entry 'c'"), ({"silence_lemma_orth": "x"}, "has no lemma .x."),
        ({"lexicon": "x"}, "unknown option; did you mean .lexicon_file"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            read(made("LmDataset", corpus_file=options["corpus_file"], phone_info={**info, **change}))


@pytest.mark.parametrize("options, message", [
    ({"orth_symbols_file": None}, "LmDataset: need orth_vocab or"),
    ({"orth_vocab": {"labels": ["UNK"]}}, "only one of orth_vocab, orth_symbols_file is possible"),
    ({"corpus_file": "none.txt"}, "corpus_file: file none.txt does not exist"),
    ({"add_delayed_seq_data": True}, '"\\[START\\]" is not among the symbols'),
    ({"add_random_phone_seqs": 1}, "needs phone_info"),
    ({"orth_post_process": "lowercas"}, "unknown text function"),
])  # fmt: skip
def test_what_lm_refuses(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        lm(tmp_path, **options)


@pytest.mark.parametrize("content, message", [
    (b"a\nb \xff\n", "lm.txt:2: must be UTF-8 text"),
    (b"\n\n", "no lines"),
    (b"<corpus><x></corpus>", "is not a Bliss"),
])  # fmt: skip
def test_bad_corpora(tmp_path, content, message):
    options = texts(tmp_path)["LmDataset"]
    (tmp_path / "lm.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        made("LmDataset", **options)


# --- the others ---


def test_translation(tmp_path):
    options = texts(tmp_path)["TranslationDataset"]
    dataset = made("TranslationDataset", **options, seq_ordering="sorted")
    assert read(dataset) == {"line-2": [1, 0], "line-0": [1, 2, 0], "line-1": [2, 1, 0]}
    assert dataset.get_data_keys() == ["classes", "data"] and dataset.num_outputs["data"] == (3, 1)
    (tmp_path / "order.txt").write_text("1\n1\n")
    assert list(read(made("TranslationDataset", **options, seq_list_file=str(tmp_path / "order.txt")))) == ["line-1"]
    assert made("TranslationDataset", **options, source_only=True).get_data_keys() == ["data"]
    factors = made("TranslationFactorsDataset", **texts(tmp_path)["TranslationFactorsDataset"])
    (tmp_path / "source.factors").write_text("a|b b|a\n")
    assert read(factors, "factor") == {"line-0": [1, 0, 2]}


@pytest.mark.parametrize("changes, message", [
    ({"file_postfix": "trian"}, "Data file not found: .*target.trian' .*did you mean \"target.train\""),
    ({"path": "none"}, "toy: path: folder none does not exist"),
    ({"unknown_label": "UNK"}, 'unknown_label "UNK" is not in the vocabulary'),
    ({"source_postfix": " END"}, 'sequence "line-0": .*can not handle unknown token without unknown_label: "END"'),
])  # fmt: skip
def test_what_translation_refuses(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read(made("TranslationDataset", **{**texts(tmp_path)["TranslationDataset"], **changes}))


def test_translation_of_unequal_files(tmp_path):
    options = texts(tmp_path)["TranslationDataset"]
    (tmp_path / "target.train").write_text("a\n")
    with pytest.raises(ConfigError, match="must have as many lines, but have 3 and 1"):
        made("TranslationDataset", **options)
    (tmp_path / "target.vocab.pkl").unlink()
    with pytest.raises(ConfigError, match="Vocab file not found"):
        made("TranslationDataset", **options)


def test_text_dicts(tmp_path):
    options = texts(tmp_path)["TextDictDataset"]
    dataset = made("TextDictDataset", **options, seq_ordering="sorted")
    assert read(dataset) == {"s2": [0], "s1": [1]} and read(dataset, "data_flat")["s1"] == [0, 1, 1]
    assert np.isnan(read(dataset, "scores")["s2"][0]) and read(dataset, "scores")["s1"] == [-np.inf, -0.5]
    (tmp_path / "texts.py").write_text("{'s1': 'a inf'}")
    assert made("TextDictDataset", **options, item_format="single").items == [[(0.0, "a inf")]]
    for text, changes, message in [
        ("{'s': 'a'}", {}, 'sequence "s": must be a list of .score, text.'),
        ("{'s': [1]}", {}, "must be a list of"),
        ("{'s': ", {}, "must hold a Python dict"),
        ("[]", {}, "must hold a non-empty Python dict"),
        ("{'s': 'a'}", {"item_format": "x"}, "item_format: must be"),
    ]:
        (tmp_path / "texts.py").write_text(text)
        with pytest.raises(ConfigError, match=message):
            made("TextDictDataset", **options, **changes)


def test_enwik8(tmp_path, monkeypatch):
    options = texts(tmp_path)["Enwik8Corpus"]
    dataset = made("Enwik8Corpus", **options, batch_num_seqs=2)
    dataset.init_seq_order(1)
    assert [dataset.get_tag(i) for i in range(dataset.num_seqs)] == [
        "offset_0_30",
        "offset_60_30",
        "offset_30_30",
        "offset_90_9",
    ]
    assert dataset.get_data(0, "data")[1:].tolist() == dataset.get_data(0, "classes")[:-1].tolist()
    monkeypatch.setattr("returnn_lite.datasets.text.enwik8.HELD_OUT", 20)
    sizes = [made("Enwik8Corpus", **{**options, "subset": s, "seq_len": 7}).get_total_num_seqs() for s in SUBSETS]
    assert sizes == [9, 3, 3] and made("Enwik8Corpus", **options, subsubset=(0, 11)).get_total_num_seqs() == 1
    for changes, message in [
        ({"subset": "train"}, "subset: must be one of"), ({"path": str(tmp_path / "x")}, "has none of the files"),
        ({"subsubset": 1}, "too few"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            made("Enwik8Corpus", **{**options, **changes})
