"""The four forms of a config file."""

import sys
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.config import Config, load_config
from returnn_lite.config.syntax import detect_form, parse_json, parse_lines, parse_yaml, strip_json_comments
from returnn_lite.errors import ConfigError


def load(path: Path, text: str) -> Config:
    path.write_text(text)
    return load_config([str(path)])


@pytest.mark.parametrize("name, text, form", [
    ("a.config", "#!rnn.py\n{", "python"),
    ("a.config", "  \n #!/usr/bin/python", "python"),
    ("a.py", "{}", "python"),
    ("a.config", " \n{", "json"),
    ("a.json", "# x\n{", "lines"),
    ("a.json", "a 1", "lines"),
    ("a.yaml", "{a: 1}", "yaml"),
    ("a.yml", "a: 1", "yaml"),
    ("a.yml", "#!rnn.py", "python"),
    ("a", "", "lines"),
])  # fmt: skip
def test_detection(name: str, text: str, form: str):
    assert detect_form(name, text) == form


# Lines


def test_lines():
    text = '# comment\n\n a  b c  \nn 1 # more\n\tlist 1,2\nquoted "x y"\n'
    assert parse_lines("f", text) == [("a", "b c"), ("n", "1"), ("list", "1,2"), ("quoted", '"x y"')]


def test_line_without_value_is_an_error():
    with pytest.raises(ConfigError, match=r"^f:2: unable to parse config line: \['a=1'\]; .*#!rnn\.py"):
        parse_lines("f", "b 1\na=1\n")


def test_python_without_its_first_line_is_warned_about(tmp_path: Path):
    config = load(tmp_path / "a.config", "b = 2\n")
    assert config.value("b", None) == "= 2"
    assert len(config.warnings) == 1 and "#!rnn.py" in config.warnings[0]


# JSON


def test_json_with_comments(tmp_path: Path):
    config = load(
        tmp_path / "a.config",
        """
{ // comment
  "url": "http://x", /* more
  "no": 1, */ "quoted \\" // ": [1, 2.5, true, null],
  "nested": {"a": "/* text */"}
}""",
    )
    assert config.typed == {
        "url": "http://x", "quoted \" // ": [1, 2.5, True, None], "nested": {"a": "/* text */"}
    }  # fmt: skip


def test_comments_keep_the_line_numbers():
    assert strip_json_comments("1 /* a\nb */ 2 // c\n3").count("\n") == 2


@pytest.mark.parametrize("text, line", [
    ('{"a": 1,}', 1),
    ('{\n# x\n"a": 1}', 2),
    ('{"a": 1 /* \n\n */ "b"}', 3),
    ('{"a": }', 1),
])  # fmt: skip
def test_invalid_json(text: str, line: int):
    with pytest.raises(ConfigError, match=rf"^f:{line}: config looks like JSON but invalid json content, "):
        parse_json("f", text)


# YAML


def test_yaml(tmp_path: Path):
    config = load(
        tmp_path / "a.yml",
        """
task: train  # comment
optimizer: {class: adam, epsilon: 1e-8}
learning_rates: [1.0e-3, 5E-4, .5]
names: ["1e-8", x]
flag: yes
""",
    )
    assert config.typed == {
        "task": "train", "optimizer": {"class": "adam", "epsilon": 1e-8}, "learning_rates": [1e-3, 5e-4, 0.5],
        "names": ["1e-8", "x"], "flag": True,
    }  # fmt: skip


@pytest.mark.parametrize("text, message", [
    ("[1, 2]", "must be one mapping of options, but is a list instead"),
    ("1: 2", "option names must be strings, but 1 is a int instead"),
    ("a: [1", "invalid YAML content"),
    ("a: !!python/object/apply:os.system [ls]", "invalid YAML content"),
    ("a: 1\x00", "invalid YAML content"),
    ("--- {a: 1}\n--- {b: 1}", "invalid YAML content"),
])  # fmt: skip
def test_invalid_yaml(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_yaml("f.yml", text)


def test_empty_yaml():
    assert parse_yaml("f.yml", "# nothing\n") == {}


# Python


def test_python_names_become_options(tmp_path: Path):
    config = load(
        tmp_path / "a.config",
        """#!rnn.py
import os
class A: pass
def f(): return os.sep + _private
_private = "p"
where = __file__, __name__, __package__
the_config = config
""",
    )
    assert config.typed["f"]().endswith("p")
    assert config.typed["where"] == (str(tmp_path / "a.config"), "__returnn_config__", "returnn")
    assert config.typed["the_config"] is config
    assert config.keys() == ["os", "A", "f", "_private", "where", "the_config"]


def test_file_name_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("where = __file__\n")
    assert load_config(["a.py"]).typed["where"] == "a.py"


def test_a_config_may_rebind_its_config_and_update_its_locals(tmp_path: Path):
    (tmp_path / "second.py").write_text("b = config.value('a', None)\n")
    (tmp_path / "first.py").write_text("""
import json
config = json.loads('{"a": 1, "task": "search"}')
locals().update(**config)
def f(): return config["a"], a
""")
    config = load_config([str(tmp_path / "first.py"), str(tmp_path / "second.py")])
    assert config.typed_value("a") == 1 and config.value("task", "train") == "search"
    assert config.typed_value("b") == "1", "the next file gets the real config again"
    assert not config.has("config") and "config" not in config.keys()


def test_class_bodies_and_comprehensions_see_the_globals(tmp_path: Path):
    config = load(tmp_path / "a.py", "n = 3\nxs = [n * i for i in range(n)]\nclass A:\n    m = n\n")
    assert config.typed["xs"] == [0, 3, 6] and config.typed["A"].m == 3


def test_config_methods_while_it_is_executed(tmp_path: Path):
    (tmp_path / "other.json").write_text('{"other": 1}')
    config = load(
        tmp_path / "a.py",
        f"""
config.load_file({str(tmp_path / "other.json")!r})
config.set("a", other + 1)
config.update({{"b": a + 1}})
if config.has("b"):
    c = config.int("b", 0) + config.typed_dict["a"]
""",
    )
    assert [config.typed[key] for key in ("other", "a", "b", "c")] == [1, 2, 3, 5]


@pytest.mark.parametrize("text, expected", [
    ("a = 1\nb = undefined\n", r":2: NameError: name 'undefined' is not defined$"),
    ("def f():\n    raise ValueError('bad')\n\nf()\n", r":2: ValueError: bad$"),
    ("import nonexistent_module_x\n", r":1: ModuleNotFoundError: No module named"),
    ("a = 1\nassert a > 1\n", r":2: AssertionError: assert a > 1, where a = 1$"),
    ("a = 1\nb = = 2\n", r":2: SyntaxError: .*: b = = 2$"),
    ("import json\njson.loads('{')\n", r":2: JSONDecodeError: "),
])  # fmt: skip
def test_errors_name_file_and_line(tmp_path: Path, text: str, expected: str):
    file = tmp_path / "a.py"
    with pytest.raises(ConfigError, match=expected) as caught:
        load(file, text)
    assert str(caught.value).startswith(str(file))


def test_exit_of_a_config_passes(tmp_path: Path):
    with pytest.raises(SystemExit):
        load(tmp_path / "a.py", "import sys\nsys.exit(3)\n")


def test_encodings(tmp_path: Path):
    file = tmp_path / "a.py"
    file.write_bytes("# -*- coding: latin-1 -*-\na = 'ä'\n".encode("latin-1"))
    assert load_config([str(file)]).typed["a"] == "ä"
    lines = tmp_path / "a.config"
    lines.write_bytes(b"\xef\xbb\xbfa 1\n")
    assert load_config([str(lines)]).value("a", None) == "1"
    lines.write_bytes(b"a \xe4\n")
    with pytest.raises(ConfigError, match="must be UTF-8 text"):
        load_config([str(lines)])


@pytest.fixture
def package(tmp_path: Path) -> Any:
    """A directory of configs that is a package; sys.path and sys.modules are put back afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    directory = tmp_path / "outer_pkg_for_test" / "inner"
    directory.mkdir(parents=True)
    (tmp_path / "outer_pkg_for_test" / "__init__.py").write_text("")
    (directory / "__init__.py").write_text("")
    yield directory
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_config_in_a_package_is_imported(package: Path):
    (package / "common.py").write_text("base = 5\n")
    config = load(
        package / "train.py",
        """
from .common import base
n = base + 1
task = config.value("task", "train")
where = __name__, __package__
def f(): return n
""",
    )
    assert config.typed["n"] == 6 and config.typed["f"]() == 6 and config.value("task", None) == "train"
    assert config.typed["where"] == ("outer_pkg_for_test.inner.train", "outer_pkg_for_test.inner")
    assert sys.modules["outer_pkg_for_test.inner.train"].n == 6  # type: ignore[attr-defined]
    assert str(package.parent.parent) in sys.path


def test_errors_of_a_config_in_a_package(package: Path):
    with pytest.raises(ConfigError, match=r"train\.py:2: NameError"):
        load(package / "train.py", "a = 1\nundefined\n")
