"""The table of global options: all that the code reads stands there, and nothing else."""

import ast
from pathlib import Path

import pytest

from returnn_lite.config import options
from returnn_lite.config.options import GROUPS, IGNORED_KEYS, OPTIONS, REFUSED_KEYS

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(options.__file__).parent
# Read by a name that is put together: `pretrain_` and an option of `pretrain`, and the like.
MADE_NAMES = ("pretrain_", "rf_use_mask_", "learning_rate_piecewise_")


def names_in(tree: ast.AST) -> set[str]:
    """What a file may ask a config for: texts of a single word, fields of classes, and parameters of functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def test_nothing_else_stands_there():
    files = [file for file in (ROOT / "returnn_lite").rglob("*.py") if TABLE not in file.parents]
    asked = set().union(*(names_in(ast.parse(file.read_text())) for file in files))
    assert {name for name in OPTIONS.keys() - asked if not name.startswith(MADE_NAMES)} == set()


def test_each_once():
    names = [option.name for group in GROUPS for option in group.options]
    assert len(names) == len(set(names)) == len(OPTIONS)
    assert not OPTIONS.keys() & (IGNORED_KEYS | REFUSED_KEYS.keys())


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_texts(option):
    assert option.meaning.endswith((".", "…")) and option.type and option.default


@pytest.mark.parametrize("name, type", [
    ("task", "str"), ("dry_run", "bool"), ("num_epochs", "int, 0 or more"), ("seq_drop", "float, 0 to 1"),
    ("random_seed", "int"), ("inc_seq_length", "float"), ("learning_rates", "list, dict or str"),
])  # fmt: skip
def test_types(name, type):
    assert OPTIONS[name].type == type


def read_defaults() -> dict[str, set[str]]:
    """The literal defaults that the code reads options with: `config.int("num_epochs", 5)` and the like."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "returnn_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or len(node.args) < 2:
                continue
            if node.func.attr.startswith("set"):
                continue
            name, default = node.args[:2]
            asks = ast.unparse(node.func.value).split(".")[-1] == "config" and isinstance(name, ast.Constant)
            if asks and isinstance(default, ast.Constant) and default.value not in (None, ""):
                found.setdefault(name.value, set()).add(str(default.value))
    return found


# 0 stands for "not given", or the default is that of one task.
NOT_DEFAULTS = {"num_inputs", "num_outputs", "output_file"}


def test_defaults_are_those_of_the_code():
    read = {name: read for name, read in read_defaults().items() if name in OPTIONS.keys() - NOT_DEFAULTS}
    assert len(read) > 50
    wrong = {n: (OPTIONS[n].default, d) for n, d in read.items() if not _is_one_of(OPTIONS[n].default, d)}
    assert wrong == {}


def _is_one_of(default: str, read: set[str]) -> bool:
    text = default.strip('"')
    return text in read or any(_number(text) == _number(other) is not None for other in read)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
