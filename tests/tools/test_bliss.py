"""The tools around Bliss corpora, and those that collect symbols."""

import ast
import gzip
import os
import stat
import sys
import zipfile

import pytest

from returnn_lite.datasets import init_dataset
from returnn_lite.tools.bliss import segment_names_main, seq_lens_main, text_main
from returnn_lite.tools.bliss_to_ogg_zip import main as to_zip
from returnn_lite.tools.collect_symbols import symbols_main, words_main
from tests.datasets.examples import wav

CORPUS = """<?xml version="1.0" encoding="utf8"?>
<corpus name="c">
  <recording name="r1" audio="{audio[0]}">
    <segment name="1" start="0" end="0.5"><speaker name="anna"/><orth> a  b </orth></segment>
    <segment name="2" start="0.5" end="1.25"><orth>b</orth></segment>
    <segment name="3" start="1.25" end="1.5"><orth>é</orth></segment>
  </recording>
  <recording name="r2" audio="{audio[1]}"><segment name="1" start="0" end="inf"><orth>c</orth></segment></recording>
</corpus>
"""
TAGS = ["c/r1/1", "c/r1/2", "c/r1/3", "c/r2/1"]
FFMPEG = """#!{python}
import sys, wave
args = sys.argv[1:]
source, target = args[args.index("-i") + 1], args[-1]
with wave.open(source) as file:
    rate = file.getframerate()
    file.setpos(int(float(args[args.index("-ss") + 1]) * rate))
    length = float(args[args.index("-t") + 1]) if "-t" in args else file.getnframes() / rate
    frames = file.readframes(int(length * rate))
with wave.open(target, "wb") as file:
    file.setparams((1, 2, rate, 0, "NONE", ""))
    file.writeframes(frames)
if "-acodec" in args:
    print("some line\\nUnknown encoder", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def corpus(tmp_path):
    """A compressed corpus of two recordings of two seconds."""
    for name in ("1.wav", "2.wav"):
        (tmp_path / name).write_bytes(wav([(i % 7) / 10 for i in range(16000)]))
    with gzip.open(tmp_path / "corpus.xml.gz", "wt", encoding="utf8") as file:
        file.write(CORPUS.format(audio=["1.wav", "2.wav"]))
    return str(tmp_path / "corpus.xml.gz")


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A program of this name that cuts WAV files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FFMPEG.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def read_zip(path):
    """(list of entries, names) of a zip file."""
    with zipfile.ZipFile(path) as archive:
        name = os.path.basename(path).removesuffix(".zip")
        return ast.literal_eval(archive.read(f"{name}.txt").decode()), sorted(archive.namelist())


# --- names, lengths, texts ---


def test_names_lengths_and_texts(corpus, tmp_path, capsys):
    assert segment_names_main([corpus]) == 0
    assert capsys.readouterr().out.split() == TAGS
    (tmp_path / "some").write_text("c/r1/3\nc/r1/1\nc/r9/1\n")
    subset = ["--subset_segment_file", str(tmp_path / "some")]
    assert seq_lens_main([corpus, *subset, "--output", str(tmp_path / "lens")]) == 0
    assert ast.literal_eval((tmp_path / "lens").read_text()) == {"c/r1/1": 50, "c/r1/3": 25}
    assert text_main([corpus, "--output", str(tmp_path / "texts.gz")]) == 0
    assert gzip.open(tmp_path / "texts.gz", "rt", encoding="utf8").read() == "a b\nb\né\nc\n"


def test_merged_segments_for_concat_seqs(corpus, tmp_path, capsys):
    (tmp_path / "some").write_text("\n".join(TAGS[:3]))
    subset = ["--subset_segment_file", str(tmp_path / "some")]
    for seconds, expected in ((0.9, [TAGS[0], "c/r1/2"]), (1.0, [TAGS[0], "c/r1/2;c/r1/3"]), (9, [";".join(TAGS[:3])])):
        assert segment_names_main([corpus, *subset, "--merge_segs_up_to_time", str(seconds)]) == 0
        assert capsys.readouterr().out.split()[:2] == expected


def test_errors_of_corpora(corpus, tmp_path, capsys):
    bad, twice = tmp_path / "bad.xml", tmp_path / "twice.xml"
    bad.write_text("<corpus name='c'><recording>")
    twice.write_text("<corpus name='c'>" + 2 * "<recording name='r'><segment name='1'/></recording>" + "</corpus>")
    (tmp_path / "none").write_text("x\n")
    for tool, args, message in (
        (seq_lens_main, [corpus], 'the segment "c/r2/1" must say where it ends'),
        (text_main, [str(bad)], "is not a Bliss corpus"),
        (text_main, [str(twice)], 'two segments are called "c/r/1"'),
        (text_main, [str(tmp_path / "1.wav")], "must be a Bliss corpus"),
        (text_main, [corpus, "--subset_segment_file", str(tmp_path / "none")], "no segments of"),
        (text_main, [str(tmp_path / "no.xml")], "does not exist"),
    ):
        assert tool(args) == 1
        assert message in capsys.readouterr().err


# --- zip files ---


def test_cutting(corpus, ffmpeg, tmp_path, capsys):
    out = str(tmp_path / "out.ogg.zip")
    assert to_zip([corpus, "--output", out, "--ffmpeg_resample", "8000", "--number_of_channels", "1"]) == 0
    entries, names = read_zip(out)
    assert names == sorted(["out.ogg.txt", *(f"out.ogg/{tag}.ogg" for tag in TAGS)])
    assert entries[0] == {
        "text": "a b", "speaker_name": "anna", "file": "c/r1/1.ogg", "seq_name": "c/r1/1", "duration": 0.5,
    }  # fmt: skip
    assert [entry["duration"] for entry in entries] == [0.5, 0.75, 0.25, 2.0]
    assert [entry["speaker_name"] for entry in entries[1:]] == [None] * 3
    dataset = init_dataset({"class": "OggZipDataset", "path": out, "audio": {"features": "raw"}, "targets": None})
    dataset.init_seq_order(1)
    assert [dataset.get_tag(i) for i in range(4)] == TAGS
    assert [len(dataset.get_data(i, "data")) for i in range(4)] == [4000, 6000, 2000, 16000]
    assert sorted(os.listdir(tmp_path)) == ["1.wav", "2.wav", "bin", "corpus.xml.gz", "out.ogg.zip"]


def test_cut_files_can_be_kept(corpus, ffmpeg, tmp_path, capsys):
    assert to_zip([corpus, "--output", str(tmp_path / "out.zip"), "--no_cleanup"]) == 0
    folder = capsys.readouterr().out.splitlines()[0].removeprefix("the audio files are kept in ")
    assert sorted(os.listdir(os.path.join(folder, "c/r1"))) == ["1.ogg", "2.ogg", "3.ogg"]


def test_texts_only(corpus, tmp_path):
    (tmp_path / "some").write_text("\n".join(TAGS[:3]))
    out = str(tmp_path / "texts.zip")
    assert to_zip([corpus, "--output", out, "--no_ogg", "--subset_segment_file", str(tmp_path / "some")]) == 0
    assert read_zip(out)[1] == ["texts.txt"]
    dataset = init_dataset(
        {"class": "OggZipDataset", "path": out, "audio": None, "targets": {"class": "Utf8ByteTargets"}}
    )
    dataset.init_seq_order(1)
    assert [dataset.get_data(i, "raw").item() for i in range(3)] == ["a b", "b", "é"]


def test_files_as_they_are(tmp_path, capsys):
    for i in (1, 2):
        (tmp_path / f"{i}.ogg").write_bytes(bytes([i]) * 10)
        os.utime(tmp_path / f"{i}.ogg", (0, 0))  # older than zip files know
    whole = "".join(
        f'<recording name="r{i}" audio="{i}.ogg"><segment name="1" start="0" end="{i}"/></recording>' for i in (1, 2)
    )
    (tmp_path / "c.xml").write_text(f'<corpus name="c">{whole}</corpus>')
    out = str(tmp_path / "out.zip")
    assert to_zip([str(tmp_path / "c.xml"), "--output", out, "--no_conversion", "--raw_sample_rate", "16000"]) == 0
    with zipfile.ZipFile(out) as archive:
        assert archive.read("out/c/r2/1.ogg") == b"\2" * 10
    (tmp_path / "c.xml").write_text(
        f'<corpus name="c">{whole.replace("start=" + chr(34) + "0", "start=" + chr(34) + "1", 1)}</corpus>'
    )
    assert to_zip([str(tmp_path / "c.xml"), "--output", str(tmp_path / "no.zip"), "--no_conversion"]) == 1
    assert 'segments begin at 0, but "c/r1/1" begins at 1.0 s of 1.ogg' in capsys.readouterr().err


def test_errors_leave_no_zip_file(corpus, ffmpeg, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "out.zip")
    unsafe = tmp_path / "unsafe.xml"
    unsafe.write_text(
        "<corpus name='..'><recording name='r' audio='1.wav'><segment name='1' end='1'/></recording></corpus>"
    )
    lost = tmp_path / "lost.xml"
    lost.write_text(CORPUS.format(audio=["1.wav", "9.wav"]))
    (tmp_path / "there.zip").touch()
    for args, message in (
        ([corpus, "--output", out, "--ffmpeg_acodec", "x"], 'segment "c/r1/1" cannot be converted: Unknown encoder'),
        ([str(lost), "--output", out], 'segment "c/r2/1": audio file does not exist: "' + str(tmp_path / "9.wav")),
        ([str(unsafe), "--output", out], 'the segment has the unsafe name "../r/1"'),
        ([corpus, "--output", out, "--sprint_cache", "x"], "--sprint_cache: archives of RASR cannot be read"),
        ([corpus, "--output", "out.tar"], "--output: must end in .zip"),
        ([corpus, "--output", str(tmp_path / "there.zip")], "this file exists already"),
        ([corpus, "--output", out, "--no_ogg"], 'the segment "c/r2/1" must say where it ends'),
    ):
        assert to_zip(args) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert to_zip([corpus, "--output", out]) == 1
    assert "needs ffmpeg, which is not installed" in capsys.readouterr().err
    found = [name for name in os.listdir(tmp_path) if "out" in name]
    assert found == []


# --- symbols ---


def test_words_and_characters(corpus, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("b a b\n", encoding="utf8")
    vocab = tmp_path / "words"
    args = [corpus, str(tmp_path / "more.txt"), "--output", str(vocab), "--add_symbol", "[END]", "--min_count", "2"]
    assert words_main(args) == 0
    assert ast.literal_eval(vocab.read_text()) == {"[END]": 0, "b": 1, "a": 2}
    out = capsys.readouterr().out
    assert out.startswith("8 words, 4 different; 2 are kept, 75.00% of the text\n       4 'b'\n       2 'a'\n")
    assert symbols_main([str(tmp_path / "more.txt"), "--top", "1"]) == 0
    assert capsys.readouterr().out == "5 characters, 3 different; 3 are kept, 100.00% of the text\n       2 ' '\n"
