"""The data of the demo with spoken numbers, with tones in place of a voice."""

import ast
import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tests.demos.demo import DEMOS, module, sequences

AMOUNTS = {"train": 5, "dev": 3, "test": 4}
CONFIG = "spoken-digits/attention.config"
NAMES = {"train": "train", "dev": "dev", "test": "eval"}  # of the sets in the config


@pytest.fixture(scope="module")
def spoken():
    return module("spoken-digits")


def tone(utterance):
    """A tenth of a second for each letter, int16."""
    time = np.arange(2205 * len(utterance.text))
    return (10000 * np.sin(time * utterance.pitch / 500)).astype("int16")


@pytest.mark.parametrize(
    "number, text",
    {
        100: "one hundred",
        319: "three hundred nineteen",
        12_020: "twelve thousand twenty",
        700_001: "seven hundred thousand one",
        999_999: "nine hundred ninety nine thousand nine hundred ninety nine",
    }.items(),
)
def test_words(spoken, number, text):
    assert " ".join(spoken.words(number)) == text


def test_zip_files(spoken, tmp_path):
    spoken.make_data(tmp_path, num_utterances=AMOUNTS, voice=tone)
    for name, in_config in NAMES.items():
        texts = ast.literal_eval((tmp_path / f"{name}.refs").read_text())
        found = sequences(CONFIG, tmp_path, in_config)
        assert list(found) == list(texts) and len(found) == AMOUNTS[name]
        for tag, seq in found.items():
            assert str(seq["raw"]) == texts[tag]
            assert [spoken.LABELS[label] for label in seq["classes"]] == texts[tag].split()
            seconds = 0.1 * len(texts[tag])
            assert seq["data"].shape == (pytest.approx(seconds / 0.03, abs=1.5), 3 * 40)
            assert seq["data"].std() == pytest.approx(1.0, abs=0.1)  # normalised by its own deviation


def test_noise_is_as_loud_as_said(spoken):
    utterance = spoken.plan({"test": 1}, seed=1)["test"][0]
    loud, quiet = (recorded(spoken, replace(utterance, snr=snr)) for snr in (0, 60))
    assert np.std(loud) == pytest.approx(2**0.5 * np.std(quiet), rel=0.05)


def recorded(spoken, utterance):
    content, seconds = spoken.record(utterance, tone)
    samples, rate = soundfile.read(io.BytesIO(content))
    assert rate == spoken.RATE and len(samples) == seconds * rate
    return samples


def test_sets_share_nothing(spoken):
    plan = spoken.plan({"train": 300, "dev": 100, "test": 100}, seed=1)
    for attribute in ("number", "speaker"):
        values = [{getattr(utterance, attribute) for utterance in utterances} for utterances in plan.values()]
        assert sum(map(len, values)) == len(set.union(*values))
    numbers = [utterance.number for utterances in plan.values() for utterance in utterances]
    assert len(set(numbers)) == 500 and min(numbers) >= 100 and max(numbers) <= 999_999
    assert plan == spoken.plan({"train": 300, "dev": 100, "test": 100}, seed=1)


def test_all_words_occur(spoken):
    texts = " ".join(utterance.text for utterance in spoken.plan({"train": 300}, seed=1)["train"])
    assert {*texts.split()} == {*spoken.LABELS[1:]}


def test_without_espeak():
    environment = {**os.environ, "PATH": ""}
    command = [sys.executable, str(DEMOS / "spoken-digits/run.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert (done.returncode, done.stdout) == (
        0,
        "skipped: espeak-ng is missing (Debian, Ubuntu: apt install espeak-ng)\n",
    )
