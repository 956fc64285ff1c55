"""The reference of global options, its JSON schema, and what `--help-option`, `--help-loss` and the like print."""

import json
from pathlib import Path

import pytest

from returnn_lite.cli import ABOUT, main
from returnn_lite.config.options import OPTIONS
from returnn_lite.datasets.registry import DATASETS
from returnn_lite.losses.base import loss_names
from returnn_lite.optim.rule_optimizer import RULES
from returnn_lite.tools import option_reference
from returnn_lite.tools.class_help import describe_dataset, describe_loss, describe_optimizer, losses_page

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS = {"string": str, "array": list, "object": dict, "boolean": bool, "integer": int, "number": (int, float)}


def test_the_page_and_the_schema_are_current(tmp_path):
    page, schema = tmp_path / "options.md", tmp_path / "config.schema.json"
    assert option_reference.main([str(page), str(schema)]) == 0
    for file in (page, schema):
        assert (DOCS / file.name).read_text() == file.read_text(), f"docs/{file.name} is old: run `make docs`"


def test_the_page_of_losses_is_current():
    assert (DOCS / "losses.md").read_text() == losses_page(), "docs/losses.md is old: run `make docs`"


def test_the_page_has_every_option_once():
    rows = [line for line in option_reference.page().split("\n") if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows if row.split("`")[1] in OPTIONS] == list(OPTIONS)


def test_the_schema_fits_defaults():
    """A default that is a literal is of the types that the schema allows."""
    properties = option_reference.schema()["properties"]
    checked = 0
    for name, option in OPTIONS.items():
        try:
            default = json.loads(option.default.replace("True", "true").replace("False", "false"))
        except ValueError:
            continue
        types = tuple(KINDS[type] for type in properties[name].get("type", []) if type != "null")
        if types:
            assert isinstance(default, types), name
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("kind, name, texts", [
    ("option", "num_epochs", ["num_epochs\n", "type     int, 0 or more", "default  5"]),
    ("option", "use_dummy_datasets", ["not supported: use a DummyDataset"]),
    ("option", "multiprocessing", ["accepted, without effect"]),
    ("loss", "ce", ["label_smoothing = 0.0", "use_normalized_loss"]),
    ("dataset", "OggZipDataset", ["segment_file = None", "partition_epoch"]),
    ("optimizer", "nadam", ["beta1 = 0.9", "learning_rate_multiplier"]),
    ("optimizer", "torch.SGD", ["nesterov = False"]),
    ("layer", "softmax", ["### softmax"]),
])  # fmt: skip
def test_help(kind, name, texts, capsys):
    assert main([f"--help-{kind}", name]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in texts)


@pytest.mark.parametrize("kind, name, line", [
    ("option", "batchsize", "--help-option: unknown option 'batchsize'; did you mean \"batch_size\"?"),
    ("loss", "cee", "--help-loss: unknown loss 'cee'; did you mean \"ce\"?"),
    ("dataset", "OggZip", '--help-dataset["class"]: dataset class "OggZip" not found; did you mean "OggZipDataset"?'),
    ("optimizer", "adm", '--help-optimizer: unknown optimizer "adm"; did you mean "adam"?'),
])  # fmt: skip
def test_help_for_unknown_names(kind, name, line, capsys):
    assert main([f"--help-{kind}", name]) == 1
    assert capsys.readouterr().err.startswith(line)


def test_everything_can_be_explained():
    assert set(ABOUT) == {"layer", "loss", "dataset", "optimizer", "option"}
    for describe, names in ((describe_loss, loss_names()), (describe_dataset, DATASETS), (describe_optimizer, RULES)):
        assert all(describe(name).startswith(f"{name}\n") for name in names)
    assert all(option_reference.describe_option(name).startswith(f"{name}\n") for name in OPTIONS)
