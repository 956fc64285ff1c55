"""How one `key text` is stored, and the order of command line and files."""

from pathlib import Path
from typing import Any

import pytest

from returnn_lite.config import Config, load_config
from returnn_lite.errors import ConfigError


@pytest.mark.parametrize("previous, text, expected", [
    ("abc", "123", "123"),
    ("abc", "a,b", "a,b"),
    ("abc", "None", "None"),
    ("", "[1]", "[1]"),
    (1, "2", 2),
    (1, "2.5", 2.5),
    (0.5, "2", 2),
    (1, "1,2", (1, 2)),
    (1, "None", None),
    (1, "'text'", "text"),
    (None, "True", True),
    (None, "3", 3),
    (False, "True", True),
    (True, "0", 0),
    ([1], "[2,3]", [2, 3]),
    ({"a": 1}, "{'b':2}", {"b": 2}),
    (1, "2*3", 6),
    (1, " 2", 2),
])  # fmt: skip
def test_typed_option_is_read_by_the_kind_of_its_value(previous: Any, text: str, expected: Any):
    config = Config({"x": previous})
    config.set_text("x", text)
    assert config.typed["x"] == expected and type(config.typed["x"]) is type(expected)
    assert config.warnings == []


def test_text_that_is_no_expression_is_kept_with_a_warning():
    config = Config({"x": 1})
    config.set_text("x", "hello world")
    assert config.typed["x"] == "hello world"
    assert config.warnings == [
        "WARNING: can't evaluate config param 'hello world' to previous type: <class 'int'>. Keeping as string."
    ]


def test_a_name_that_does_not_exist_is_an_error():
    config = Config({"a_bool": True})
    with pytest.raises(ConfigError) as caught:
        config.set_text("a_bool", "false")
    assert str(caught.value) == "a_bool: cannot evaluate 'false': NameError: name 'false' is not defined; write False"


@pytest.mark.parametrize("text", ["1/0", "foo", "[].x", "int('a')"])
def test_other_failures_are_errors(text: str):
    with pytest.raises(ConfigError, match="^x: cannot evaluate"):
        Config({"x": 1}).set_text("x", text)


@pytest.mark.parametrize("text", ["model", "net.002", "a/b-c.002", "/a/b"])
def test_text_over_none_stays_text(text: str):
    config = Config({"load": None})
    config.set_text("load", text)
    assert config.typed["load"] == text
    assert len(config.warnings) == 1


@pytest.mark.parametrize("text, expected", [
    ("abc", ["abc"]),
    ("a,b , c", ["a", "b ", " c"]),
    (",x", [",x"]),
    ("x,", ["x", ""]),
    ("", [""]),
    ("[1,2]", ["[1", "2]"]),
])  # fmt: skip
def test_untyped_text_is_split_at_commas(text: str, expected: list[str]):
    config = Config()
    config.set_text("x", text)
    assert config.untyped == {"x": expected}


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_the_config_sees_overrides_as_text_and_they_win_in_the_end(tmp_path: Path):
    file = write(tmp_path / "a.config", """#!rnn.py
seen = config.value("n", "no"), config.typed_value("n"), config.int("n", 0), config.float("n", 0.), config.has("n")
listed = config.list("words")
untouched = config.value("absent", "default")
n = 5
name = "five"
""")  # fmt: skip
    config = load_config([file], [("n", "7"), ("words", "a,b"), ("name", "7"), ("new", "7")])
    assert config.typed["seen"] == ("7", None, 7, 7.0, True)
    assert config.typed["listed"] == ["a", "b"]
    assert config.typed["untouched"] == "default"
    assert (config.typed["n"], config.typed["name"]) == (7, "7")
    assert config.untyped["new"] == ["7"] and "new" not in config.typed


def test_later_files_win_and_see_earlier_names(tmp_path: Path):
    first = write(tmp_path / "a.py", "x = 1\ny = 2\ndef f(): return x\n")
    second = write(tmp_path / "b.py", "y = x + 10\nz = f()\nx = 100\n")
    config = load_config([first, second])
    assert [config.typed[key] for key in "xyz"] == [100, 11, 1]
    assert config.typed["f"]() == 100, "globals of config functions are the options"


def test_overrides_change_what_config_functions_see(tmp_path: Path):
    file = write(tmp_path / "a.py", "x = 1\ndef f():\n    global y\n    y = x * 2\n    return y\n")
    config = load_config([file], [("x", "21")])
    assert config.typed["f"]() == 42
    assert config.int("y", 0) == 42


def test_forms_can_be_mixed_and_lines_follow_the_typing_rules(tmp_path: Path):
    json = write(tmp_path / "a.json", '{"n": 1, "name": "abc"}')
    lines = write(tmp_path / "b.config", "n 2\nname 3,4\nother 5\n")
    config = load_config([json, lines])
    assert config.typed == {"n": 2, "name": "3,4"}
    assert config.untyped == {"other": ["5"]}


def test_include_and_the_config_option_load_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.json", '{"a": 1}')
    write(tmp_path / "b.yaml", "b: 2")
    write(tmp_path / "main.config", "b 0\ninclude a.json,b.yaml\n")
    config = load_config(["main.config"])
    assert config.typed == {"a": 1, "b": 2}
    assert load_config([], [("include", "a.json")]).typed == {"a": 1}


LINES_ARE_IGNORED = (
    "WARNING: `batch_size 40` of a line-based config is ignored, as RETURNN does; "
    "to have it honoured, give ++batch_size 40 on the command line, or use a Python config"
)


@pytest.mark.parametrize("files, overrides, size, warnings", [
    ({"a.config": "batch_size 40\n"}, [], 1, [LINES_ARE_IGNORED]),
    ({"a.config": "include b.config\n", "b.config": "batch_size 40\n"}, [], 1, [LINES_ARE_IGNORED]),
    ({"a.config": "batch_size 40\n"}, [("batch_size", "40")], 40, []),
    ({"a.config": "batch_size 40\n"}, [("batch_size", "{'data': 9}")], {"data": 9}, []),
    ({"a.config": "max_seqs 4\n"}, [("batch_size", "40")], 40, []),
    ({"a.config": "batch_size 40\ninclude b.json\n", "b.json": '{"batch_size": 7}'}, [], 7, []),
    ({"a.config": "include b.json\nbatch_size 40\n", "b.json": '{"batch_size": 7}'}, [], 40, []),
])  # fmt: skip
def test_a_batch_size_of_lines_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], overrides: Any, size: Any, warnings: Any
):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        write(tmp_path / name, text)
    config = load_config(["a.config"], overrides)
    assert config.number_or_dict("batch_size", 1) == size
    assert config.warnings == warnings


def test_configs_still_see_an_ignored_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.config", "batch_size 40\ninclude b.py\n")
    write(tmp_path / "b.py", "batch_size = config.int('batch_size', 0) * 2\n")
    assert load_config(["a.config"]).number_or_dict("batch_size", 1) == 80


def test_warnings_are_given_once(tmp_path: Path):
    file = write(tmp_path / "a.py", "x = 1\n")
    config = load_config([file, file], [("x", "a b"), ("x", "a b")])
    assert len(config.warnings) == 1


def test_missing_file():
    with pytest.raises(ConfigError) as caught:
        load_config(["nothing.config"])
    assert str(caught.value) == "config file not found: 'nothing.config'"


def test_a_config_sees_the_task_whose_network_to_torch_writes(tmp_path):
    file = tmp_path / "a.config"
    file.write_text('#!rnn.py\nseen = config.value("task", "train")\ntask = seen\n')
    for search, wanted in ((False, "forward"), (True, "search")):
        config = load_config([str(file)], [("to_torch_search", str(search)), ("task", "to_torch")])
        assert config.typed_value("seen") == wanted and config.value("task", "") == "to_torch"
