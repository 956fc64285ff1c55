"""The learning rate file: its text to the byte, reading without running code, replacing as a whole."""

import errno
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from returnn_lite.errors import ConfigError
from returnn_lite.schedule import Record, lr_file

EXAMPLE = """{
1: EpochData(learningRate=0.01, error={
':meta:epoch_num_train_steps': 6,
':meta:note': 'x',
'dev_error': 0.44312795996665955,
'dev_score': float('nan'),
'train_score': float('-inf'),
}),
2: EpochData(learningRate=1e-05, error={'dev_score': 1.5, 'train_score': 2.0}),
10: EpochData(learningRate=0.1, error={}),
}
"""
RECORDS = {
    10: Record(0.1),
    1: Record(
        0.01,
        {"train_score": -math.inf, "dev_score": math.nan, "dev_error": 0.44312795996665955},
        {"epoch_num_train_steps": 6, "note": "x"},
    ),
    2: Record(1e-5, {"train_score": 2.0, "dev_score": 1.5}),
}


def test_text():
    assert lr_file.to_text(RECORDS) == EXAMPLE
    assert lr_file.to_text(lr_file.from_text(EXAMPLE, "f")) == EXAMPLE


@pytest.mark.parametrize("value, text", [
    ({}, "{}"),
    ({"b": 1, "a": 2.0}, "{'a': 2.0, 'b': 1}"),
    ({"a" * 30: 1, "b": 22222}, "{\n'" + "a" * 30 + "': 1,\n'b': 22222,\n}"),  # 35 + 10 characters
    ({"a" * 20: 1, "b" * 6: 3}, "{'" + "a" * 20 + "': 1, '" + "b" * 6 + "': 3}"),
    ({"a" * 24: 1, "b" * 6: 3}, "{\n'" + "a" * 24 + "': 1,\n'" + "b" * 6 + "': 3,\n}"),  # 40 characters
    ([1.0, math.inf], "[1.0, float('inf')]"),
    ((1.0,), "(1.0,)"),
    (True, "True"),
])  # fmt: skip
def test_better_repr(value, text: str):
    assert lr_file.better_repr(value) == text


@pytest.mark.parametrize("text, value", [
    ("float('nan')", math.nan),
    ("nan", math.nan),
    ("-inf", -math.inf),
    ("np.float32(0.01)", 0.01),
    ("np.float64(-2.5)", -2.5),
    ("numpy.int64(3)", 3),
    ("np.nan", math.nan),
    ("+0.5", 0.5),
    ("0.1 * 2 - 1/4", -0.05),
])  # fmt: skip
def test_numbers(text: str, value: float):
    record = lr_file.from_text(f"{{3: EpochData(learningRate=0.1, error={{'dev_score': {text}}})}}", "f")[3]
    assert record.error["dev_score"] == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("text, record", [
    ("EpochData(learningRate=1, error=0.5)", Record(1.0, {"old_format_score": 0.5})),
    ("EpochData(learning_rate=0.2)", Record(0.2)),
    ("EpochData(learningRate=None, error={}, meta={'a': 1})", Record(None, {}, {"a": 1})),
    ("EpochData(learningRate=0.1, error={':meta:a': [1, 2.0], 'x': 1.0})", Record(0.1, {"x": 1.0}, {"a": [1, 2.0]})),
])  # fmt: skip
def test_forms_of_records(text: str, record: Record):
    assert lr_file.from_text(f"{{1: {text}}}", "f") == {1: record}


@pytest.mark.parametrize("text, where, message", [
    ("{1: EpochData(learningRate=open('x'), error={})}", "f:1", "open('x')"),
    ("{1: EpochData(learningRate=0.1, error={}),\n2: __import__('os')}", "f:2", "__import__('os')"),
    ("{1: EpochData(0.1, {})}", "f:1", "EpochData(0.1, {})"),
    ("{1: EpochData(learningRate=0.1, score=1)}", "f:1", "EpochData has no `score`"),
    ("{1: EpochData(learningRate=0.1, error={'a': x.y})}", "f:1", "x.y"),
    ("{1: EpochData(learningRate=-'a', error={})}", "f:1", "must be a number, but is `'a'` instead"),
    ("{1: EpochData(learningRate=float('a'), error={})}", "f:1", "must be a number"),
    ("{1: EpochData(learningRate='a', error={})}", "f:1", "`learningRate` must be a number"),
    ("{1: EpochData(learningRate=0.1, error='a')}", "f:1", "`error` a dict"),
    ("{1: EpochData(learningRate=0.1, error={'a': 'b'})}", "f:1", "`a` must be a number, but is 'b' instead"),
    ("{1: EpochData(learningRate=0.1, error={2: 1.0})}", "f:1", "must be names"),
    ("{**{}, 1: 2}", "f:1", "keys must be"),
    ("{1: 0.1}", "f:1", "epoch 1 must be EpochData(...), but is `0.1`"),
    ("{1: EpochData(learningRate=0.1),\n 'a': EpochData(learningRate=0.1)}", "f:2", "has the key 'a'"),
    ("\n\n [1]", "f:3", "must be a dict {epoch: EpochData(...), ...}, but is `[1]`"),
    ("\n{1: EpochData(learningRate=0.1,\nerror={'a': 1/0})}", "f:3", "must be a number, but is `1 / 0`"),
    ("{1: EpochData(learningRate=int(inf))}", "f:1", "must be a number, but is `int(inf)`"),
    ("{\n1: EpochDta(learningRate=0.1)}", "f:2", "has `EpochDta(learningRate=0.1)`; did you mean \"EpochData\"?"),
    ("{1: EpochData(learningRate=0.1)}\n\0", "f:2", "must be text, but has a zero byte"),
    ("(" * 5000, "f:1", "must be a Python expression"),
    ("{1: EpochData(learningRate=" + "-" * 5000 + "1)}", "f", "cannot be read"),
    ("{1: EpochData(\n", "f:1", "must be a Python expression"),
    ("", "f:1", "must be a Python expression, a dict {epoch: EpochData(...), ...}, but it is empty"),
])  # fmt: skip
def test_anything_else_is_an_error(text: str, where: str, message: str):
    with pytest.raises(ConfigError) as caught:
        lr_file.from_text(text, "f")
    assert caught.value.path == where and message in caught.value.message
    assert "\n" not in str(caught.value)


def test_other_encodings(tmp_path):
    path = tmp_path / "rates"
    text = "{1: EpochData(learningRate=0.1, error={\n':meta:note': 'ü',\n})}"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="rates:2: must be UTF-8 text, but has the byte 0xfc there"):
        lr_file.read(str(path))
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match="rates:1: must be UTF-8 text, but has the byte 0xff there"):
        lr_file.read(str(path))
    path.write_bytes(text.encode("utf-8-sig"))
    assert lr_file.read(str(path)) == {1: Record(0.1, meta={"note": "ü"})}


def test_write_replaces_the_whole_file(tmp_path):
    path = str(tmp_path / "new" / "folder" / "rates")
    lr_file.write(path, RECORDS)
    lr_file.write(path, {1: Record(0.5)})
    assert lr_file.read(path) == {1: Record(0.5)} and os.listdir(tmp_path / "new" / "folder") == ["rates"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = str(tmp_path / "rates")
    lr_file.write(path, {1: Record(0.5)})

    def fails(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left on device: '.*rates'"):
        lr_file.write(path, RECORDS)
    assert os.listdir(tmp_path) == ["rates"]
    assert lr_file.read(path) == {1: Record(0.5)}


@pytest.mark.parametrize("value, plain", [
    (np.float32(0.01), 0.01),
    (np.float64(0.01), 0.01),
    (torch.tensor(0.01), 0.01),
    (np.int64(3), 3),
    (3, 3),
    ("x", "x"),
    (np.float32("nan"), math.nan),
])  # fmt: skip
def test_shortest(value, plain):
    found = lr_file.shortest(value)
    assert type(found) is type(plain) and (found == plain or found != found)


NUMBERS = st.floats(allow_nan=False) | st.integers(0, 10**9)
KEYS = st.text(max_size=20).filter(lambda key: not key.startswith(":meta:"))
RECORD = st.builds(
    Record,
    st.floats(0, 10),
    st.dictionaries(KEYS, st.floats(allow_nan=False), max_size=5),
    st.dictionaries(st.text(max_size=10), NUMBERS | st.text() | st.lists(NUMBERS, max_size=3), max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 1000), RECORD, max_size=4))
def test_what_is_written_is_read(records):
    text = lr_file.to_text(records)
    assert lr_file.from_text(text, "f") == records
    assert lr_file.to_text(lr_file.from_text(text, "f")) == text
