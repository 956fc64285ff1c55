"""Mistakes on the way from own files to data sets: each is told in one line that says where, and what was expected."""

import os

import numpy as np
import pytest

from returnn_lite.tools.own_data.command import main
from tests.tools.own_files import tones, write_speech, write_texts, write_wav

AUDIO = ["audio", "wavs", "transcripts.tsv", "data"]


def lists(name, content):
    """A list of one's own in place of the good one."""

    def write():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    return write


def kaldi(**files):
    """A Kaldi folder."""

    def write():
        for name, content in files.items():
            lists(f"kaldi/{name.replace('_', '.')}", content)()

    return write


def wavs(content, rate=16000, channels=1):
    """Another content of u01.wav."""

    def write():
        if isinstance(content, bytes):
            lists("wavs/u01.wav", content)()
        else:
            write_wav("wavs/u01.wav", content, rate, channels)

    return write


def nothing():
    """All is as it should be, but for the command."""


LINE = "u00.wav\tab\n"
KALDI = ["audio", "wavs", "kaldi", "data"]
MISTAKES = [
    # where the files are
    (
        nothing,
        ["audio", "wav", "transcripts.tsv", "data"],
        "wav: must be the folder of the audio files, but does not exist",
    ),
    (
        nothing,
        ["audio", "wavs", "transcript.tsv", "data"],
        'transcript.tsv: no such file or folder; did you mean "transcripts.tsv"',
    ),
    (
        lists("list.txt", LINE),
        ["audio", "wavs", "list.txt", "data"],
        "list.txt: must be a table (.tsv, .csv), JSON lines",
    ),
    (lists("data/old", "x"), AUDIO, "data: must be a new or empty folder, but holds old"),
    (lists("data", "x"), AUDIO, "data: must be a folder to write to, but is a file"),
    # the list
    (lists("transcripts.tsv", ""), AUDIO, "transcripts.tsv: holds no utterances"),
    (
        lists("transcripts.tsv", "file\tspeaker\n" + LINE),
        AUDIO,
        "transcripts.tsv:1: no column for texts: one must be called text, transcript",
    ),
    (
        lists("transcripts.tsv", "speaker\ttext\n" + LINE),
        AUDIO,
        "transcripts.tsv:1: no column for audio files: one must be called file, path",
    ),
    (
        lists("transcripts.tsv", LINE + "u01.wav\n"),
        AUDIO,
        "transcripts.tsv:2: must have 2 columns (file, text), but has 1",
    ),
    (
        lists("transcripts.tsv", LINE + "u01.wav ab\n"),
        AUDIO,
        "transcripts.tsv:2: must have 2 columns (file, text), but has 1",
    ),
    (lists("transcripts.tsv", LINE + "u01.wav\t \n"), AUDIO, "transcripts.tsv:2: the text of u01.wav is empty"),
    (lists("transcripts.tsv", LINE + "\tab\n"), AUDIO, "transcripts.tsv:2: the name of the audio file is empty"),
    (
        lists("transcripts.tsv", LINE + "u1.wav\tab\n"),
        AUDIO,
        'transcripts.tsv:2: audio file wavs/u1.wav does not exist; did you mean "u',
    ),
    (
        lists("transcripts.tsv", LINE + LINE),
        AUDIO,
        'transcripts.tsv:2: the name "u00" is used already in transcripts.tsv:1',
    ),
    (
        lists("transcripts.tsv", LINE.encode() + b"u01.wav\tb\xe9b\xe9\n"),
        AUDIO,
        "transcripts.tsv:2: must be UTF-8 text, but has the byte 0xe9",
    ),
    (
        lists("transcripts.tsv", "file\ttext\tsplit\nu00.wav\tab\ttrian\n"),
        AUDIO,
        "transcripts.tsv:2: the split must be one of train, dev",
    ),
    (
        lists("l.jsonl", '{"file": "u00.wav", "text": "ab"}\n{"file": "u01.wav"\n'),
        ["audio", "wavs", "l.jsonl", "data"],
        "l.jsonl:2: is not JSON: ",
    ),
    (
        lists("l.jsonl", '["u00.wav", "ab"]\n'),
        ["audio", "wavs", "l.jsonl", "data"],
        "l.jsonl:1: must be an object such as",
    ),
    (
        lists("l.jsonl", '{"file": "u00.wav", "words": "ab"}\n'),
        ["audio", "wavs", "l.jsonl", "data"],
        "l.jsonl:1: must have one of text, transcript",
    ),
    # Kaldi folders
    (kaldi(text="u00 ab\n"), KALDI, "kaldi: must be a table (.tsv, .csv)"),
    (kaldi(wav_scp="u00 u00.wav\n"), KALDI, "but a Kaldi folder needs the file text"),
    (
        kaldi(text="u00 ab\nu0 b\n", wav_scp="u00 u00.wav\n"),
        KALDI,
        'kaldi/text:2: "u0" is not in kaldi/wav.scp; did you mean "u00"',
    ),
    (
        kaldi(text="u00 ab\n", wav_scp="u00 sox u00.wav -t wav - |\n"),
        KALDI,
        "kaldi/wav.scp:1: is a command; write its output to a file",
    ),
    (
        kaldi(text="a ab\n", wav_scp="u00 u00.wav\n", segments="a u00 0\n"),
        KALDI,
        'kaldi/segments:1: must be "name recording start end"',
    ),
    (
        kaldi(text="a ab\nb b\nc c\n", wav_scp="u00 u00.wav\n", segments="a u00 0 0.05\nb u00 0 99\nc u00 0 0.05\n"),
        KALDI,
        "kaldi/text:2: ends at 99 s, but wavs/u00.wav has",
    ),
    (
        kaldi(text="a ab\nb b\nc c\n", wav_scp="u00 u00.wav\n", segments="a u00 0 0.05\nb u00 1 0.5\nc u00 0 0.05\n"),
        KALDI,
        "kaldi/text:2: must begin before it ends",
    ),
    # the audio
    (wavs(b"RIFF no audio"), AUDIO, "transcripts.tsv:2: wavs/u01.wav: cannot be read as"),
    (wavs([]), AUDIO, "transcripts.tsv:2: wavs/u01.wav: has no samples"),
    (wavs(np.zeros(2000)), AUDIO, "transcripts.tsv:2: wavs/u01.wav: is silent: all samples are 0"),
    (
        wavs(tones("abc", 8000), 8000),
        AUDIO,
        "Hz; --sample_rate|has 8000 Hz, but|--sample_rate 16000 converts all files",
    ),
    (
        wavs(tones("abc", 16000), channels=2),
        AUDIO,
        "transcripts.tsv:2: wavs/u01.wav: has 2 channels; --mono mixes them",
    ),
    # options
    (nothing, [*AUDIO, "--sample_rate", "16"], "--sample_rate: must be in Hz, such as 16000, but is 16"),
    (nothing, [*AUDIO, "--dev", "-1"], "--dev: must be a share below 1 or a whole number, but is -1"),
    (nothing, [*AUDIO, "--test", "2.5"], "--test: must be a share below 1 or a whole number, but is 2.5"),
    (nothing, [*AUDIO, "--dev", "20"], "--dev: nothing is left to train on: 20 sequences, 20 of them for dev"),
    (nothing, [*AUDIO, "--vocab", "bpe"], "--vocab_size: must be given for bpe, such as 500"),
    (nothing, [*AUDIO, "--vocab_size", "30"], "--vocab_size: is for words, bpe and sentencepiece"),
    (
        nothing,
        [*AUDIO, "--vocab", "bpe", "--vocab_size", "5"],
        "--vocab_size: must be above 8, the number of single characters",
    ),
    (
        nothing,
        [*AUDIO, "--vocab", "sentencepiece", "--vocab_size", "900"],
        "--vocab_size: 900 does not suit these texts: ",
    ),
    (nothing, [*AUDIO, "--end"], "--end: needs labels with an end symbol: --vocab words, bpe or sentencepiece"),
    # texts
    (nothing, ["text", "sorce.txt", "lm"], "sorce.txt: no such file"),
    (
        lists("target.txt", "x\ny\n"),
        ["text", "source.txt", "target.txt", "mt"],
        "target.txt: must have as many lines as source.txt, 40, but has 2",
    ),
    (lists("empty.txt", "\n\n"), ["text", "empty.txt", "lm"], "empty.txt: holds no sentences"),
    (
        lists("p.tsv", "a\tb\nc\n"),
        ["text", "p.tsv", "mt"],
        "p.tsv:2: must have two columns, source and target, but has 1",
    ),
    (lists("p.csv", "a,b\nc,\n"), ["text", "p.csv", "mt"], "p.csv:2: a side of the pair is empty"),
    (nothing, ["text", "source.txt", "target.txt", "sentences.txt", "mt"], "texts: must be one text file or two"),
]


def test_there_are_enough_of_them():
    assert len(MISTAKES) >= 39


@pytest.mark.parametrize("prepare, arguments, message", MISTAKES)
def test_one_helpful_line(tmp_path, monkeypatch, capsys, prepare, arguments, message):
    if "sentencepiece" in arguments:
        pytest.importorskip("sentencepiece")
    monkeypatch.chdir(tmp_path)
    write_speech(tmp_path)
    write_texts(tmp_path)
    prepare()
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert any(part in shown for part in message.split("|")), shown
    assert shown.count("\n") == 1 and "Traceback" not in shown
    left = [
        name
        for name in ("data", "lm", "mt")
        if os.path.isdir(name) and os.listdir(name) != ["old"] and os.listdir(name)
    ]
    assert not left, os.listdir(left[0])
