"""The list of known options is frozen: a new option is added here, on purpose, too. Misspelt ones are found."""

import ast
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.config import KNOWN_KEYS, Config, misspelt_keys, refuse_keys, warn_misspelt_keys
from returnn_lite.errors import ConfigError
from returnn_lite.log import FileTarget, Log

ROOT = Path(__file__).resolve().parents[2]
FROZEN = (Path(__file__).parent / "known_keys.txt").read_text().split()


ACCESSORS = {
    "value", "typed_value", "opt_typed_value", "int", "float", "bool", "is_true", "bool_or_other", "list", "int_list",
    "float_list", "int_pair", "literal", "number_or_dict", "has", "is_typed",
}  # fmt: skip


def read_options(path: Path) -> set[str]:
    """The options that a file reads by name: the constant first arguments of `config.int("key", …)` and the like."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args)
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ACCESSORS
        and ast.unparse(call.func.value).split(".")[-1] in ("config", "_config")
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_option_that_the_library_reads_is_on_the_list():
    files = sorted((ROOT / "returnn_lite").rglob("*.py"))
    unknown = {str(file.relative_to(ROOT)): sorted(read_options(file) - KNOWN_KEYS) for file in files}
    assert {file: keys for file, keys in unknown.items() if keys} == {}


def test_the_reader_of_options(tmp_path: Path):
    file = tmp_path / "a.py"
    file.write_text('config.int("a", 0)\nself.config.has("b")\nother.int("c")\nconfig.set("d", 1)\nconfig.int(e, 0)\n')
    assert read_options(file) == {"a", "b"}


def test_the_list_is_frozen():
    assert sorted(KNOWN_KEYS) == FROZEN


@pytest.mark.parametrize("key, meant", [
    ("batchsize", "batch_size"),
    ("Batch_Size", "batch_size"),
    ("learning_rte", "learning_rate"),
    ("num_epoch", "num_epochs"),
    ("optimiser", "optimizer"),
    ("eval_dataset", "eval_datasets"),
    ("gradient_clip_globalnorm", "gradient_clip_global_norm"),
    ("cleanup_old_model", "cleanup_old_models"),
    ("max_seq_len", "max_seq_length"),
])  # fmt: skip
def test_misspelt(key: str, meant: str):
    assert misspelt_keys(Config({key: 1})) == {key: meant}


@pytest.mark.parametrize("options", [
    {"batch_size": 1},
    {"multiprocessing": True},
    {"EpochSplit": 4},
    {"num_layers": 3, "data_files": {}, "seq_order": "x", "AttNumHeads": 1, "vocab_file": "x", "EncKeyTotalDim": 1},
    {"_networks": 1},
    {"x": 1, "i": 2, "cf": 3},
    {"get_networks": lambda: None, "models": Path, "log_": Log},
    {"learning_rate": 1.0, "learning_rate2": 2.0},
    {"networks": {}, "network": {}},
    {"something_else_altogether": 1},
])  # fmt: skip
def test_not_misspelt(options: dict[str, Any]):
    assert misspelt_keys(Config(options)) == {}


def test_a_key_that_was_read_is_no_misspelling():
    config = Config({"batchsize": 10})
    config.int("batchsize", 0)
    assert misspelt_keys(config) == {}


def test_untyped_options_too():
    config = Config()
    config.set_text("num_epoch", "3")
    assert misspelt_keys(config) == {"num_epoch": "num_epochs"}


def test_warning(tmp_path: Path):
    log = Log([FileTarget(str(tmp_path / "log"), 1, "raw")])
    warn_misspelt_keys(Config({"batchsize": 1, "num_epochs": 3}), log)
    log.close()
    text = (tmp_path / "log").read_text()
    assert text == 'WARNING: config option "batchsize" is not known and was not read; did you mean "batch_size"?\n'


def test_options_that_would_be_without_effect_are_refused():
    refuse_keys(Config({"train_in_eval": False, "max_total_num_seqs": -1}))
    with pytest.raises(ConfigError, match="eval_use_train_flag: this option is not supported: evaluations always run"):
        refuse_keys(Config({"eval_use_train_flag": True}))
