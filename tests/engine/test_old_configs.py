"""Configs of the first years: JSON and lines, no `extern_data`, no `from`, legacy switches, options without effect."""

import json
import re

import pytest

from tests.engine.helpers import rnn

SETTINGS = {
    "task": "train", "device": "cpu", "num_inputs": 9, "num_outputs": 2, "loss": "ce", "cache_size": "0", "window": 1,
    "batching": "random", "truncation": -1, "multiprocessing": True, "update_on_device": True, "chunking": "50:25",
    "max_seqs": 40, "num_epochs": 1, "learning_rate": 0.001, "gradient_clip": 10, "gradient_noise": 0.0,
    "start_batch": "auto", "start_epoch": "auto", "EpochSplit": 6, "patch_atfork": True, "log_verbosity": 4,
}  # fmt: skip
NETWORK = """
    // two directions, and a layer above them
    "fw": {"class": "rec", "unit": "lstmp", "n_out": 4, "dropout": 0.1, "L2": 0.01, "sampling": 1, "direction": 1},
    "bw": {"class": "rec", "unit": "lstmp", "n_out": 4, "sampling": 1, "direction": -1},
    "h": {"class": "hidden", "activation": "sigmoid", "n_out": 5, "from": ["fw", "bw"]}, /* above */
    "output": {"class": "softmax", "loss": "ce", "from": "h"}"""
DATA = """
train = {"class": "Task12AXDataset", "num_seqs": 20}
dev = {"class": "Task12AXDataset", "num_seqs": 5, "fixed_random_seed": 1}
"""


def as_json(switch):
    data = DATA.replace("train =", '"train":').replace("dev =", '"dev":').replace("}\n", "},\n")
    settings = json.dumps(SETTINGS)[1:-1]
    return {"my.config": f'{{{data}{settings}, "{switch}": true, "batch_size": 500, "network": {{{NETWORK}}}}}'}


def as_lines(switch):
    settings = "".join(f"{key} {str(value).lower()}\n" for key, value in SETTINGS.items() if key != "EpochSplit")
    lines = f"# made by hand\n{settings}{switch} true   # the optimizer\nbatch_size 500\ninclude data.config,net.json\n"
    return {"my.config": lines, "data.config": f"#!python\n{DATA}", "net.json": f'{{"network": {{{NETWORK}}}}}'}


@pytest.mark.parametrize(
    "form, switch, steps", [(as_json, "nadam", 5), (as_lines, "adam", None), (as_json, "adadelta", 5)]
)
def test_it_trains(tmp_path, form, switch, steps):
    for name, text in form(switch).items():
        (tmp_path / name).write_text(text)
    done = rnn("my.config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"train epoch 1, finished after (\d+) steps", done.stdout)
    assert found and (int(found.group(1)) == steps if steps else int(found.group(1)) > 20)
    assert "dev: score 0." in done.stdout
    assert ("`batch_size 500` of a line-based config is ignored" in done.stdout) == (form is as_lines)
