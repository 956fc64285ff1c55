"""The tool that looks at batches without a network."""

import pytest

from returnn_lite.tools.analyze_batches import main

CONFIG = """#!rnn.py
import numpy
train = {
    "class": "StaticDataset",
    "data": [{"data": numpy.zeros((n, 1)), "classes": numpy.zeros(n // 2, int)} for n in (4, 2, 6, 6, 9)],
}
batch_size = 12
batching = "default"
network = {"#config": {"batch_size": 100}}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "my.config").write_text(CONFIG)
    return str(tmp_path / "my.config")


def test_report(config, capsys):
    """Batches: 4, 2 | 6, 6 | 9."""
    assert main([config]) == 0
    assert capsys.readouterr().out == (
        "train, epoch 1\n"
        "3 batches of 5 sequences or chunks\n"
        "per batch: mean 1.66667, std dev 0.471405, min/max 1/2\n"
        "'data': 29 frames, 27 used, 93.1% of them\n"
        "'classes': 14 frames, 13 used, 92.9% of them\n"
    )


def test_part_of_the_epoch_and_one_key(config, capsys):
    assert main([config, "--endseq", "3", "--key", "data"]) == 0
    out = capsys.readouterr().out
    assert "2 batches of 4" in out and "'data': 20 frames, 18 used" in out and "classes" not in out


def test_options_of_the_epochs_network(config, capsys):
    assert main([config, "--use_pretrain", "--verbosity", "1"]) == 0
    assert "1 batches of 5" in capsys.readouterr().out


def test_chunks(config, tmp_path, capsys):
    with open(config, "a") as file:
        file.write('chunking = "3:3"\nextern_data = {"data": {"dim": 1}}\n')
    assert main([config]) == 0
    out = capsys.readouterr().out
    assert "of 10 sequences or chunks" in out and "'data': " in out and "classes" not in out


@pytest.mark.parametrize("args, message", [
    (["--key", "dat"], 'unknown key "dat"; did you mean "data"?'),
    (["--dataset", "dev"], "the config has no dataset `dev`"),
])  # fmt: skip
def test_errors(config, capsys, args, message):
    assert main([config, *args]) == 1
    assert message in capsys.readouterr().err
