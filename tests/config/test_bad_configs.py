"""Config files that are none: one line each, which names the file."""

from pathlib import Path

import pytest

from returnn_lite import cli
from returnn_lite.config import Config, load_config
from returnn_lite.errors import ConfigError

DEEP = 100_000


def error(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        Config().load_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


FILES = {
    "deep.json": ('{"a": ' + "[" * DEEP, "deep.json: invalid JSON content, it is nested too deeply"),
    "deep.yaml": ("a: " + "[" * DEEP, "deep.yaml: invalid YAML content, it is nested too deeply"),
    "long.json": ('{"a": ' + "1" * 10_000 + "}", "long.json: invalid JSON content, Exceeds the limit"),
    "date.yaml": ("a: 2020-13-45", "date.yaml: invalid YAML content, month must be in 1..12"),
    "list.yaml": ("? [a]\n: 1", "list.yaml:1: invalid YAML content, found unhashable key"),
    "deep.py": ("a = " + "(" * 10_000, "deep.py:1: SyntaxError: too many nested parentheses"),
    "bytes.config": (b"a \xff\xfe", "bytes.config: must be UTF-8 text, but has invalid start byte at byte 2"),
    "exit.py": ("import nothing_like_this\n", "exit.py:1: ModuleNotFoundError: No module named 'nothing_like_this'"),
    "name.py": ("a = b\n", "name.py:1: NameError: name 'b' is not defined"),
    "python.config": ("import os\na = 1\n", "python.config:1: looks like Python, but is not marked as such"),
    "pairs.config": ("a = 1\nb = 2\n", "pairs.config:1: looks like Python, but is not marked as such"),
    "function.config": ("\ndef f():\n  return 1\n", "function.config:2: looks like Python, but is not marked as such"),
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_files(name: str, tmp_path: Path):
    content, start = FILES[name]
    assert error(tmp_path / name, content).startswith(start)


def test_null_bytes(tmp_path: Path):
    assert error(tmp_path / "null.py", b"a = 1\0").startswith("null.py: ")


@pytest.mark.parametrize("content", ["a 1\nb 2\n", "a = 1\n", "a x\nb = 2\n", "x\t1 # = 2\n"])
def test_lines_stay_lines(content: str, tmp_path: Path):
    path = tmp_path / "a.config"
    path.write_text(content)
    Config().load_file(path)


def test_files_that_cannot_be_read(tmp_path: Path):
    for path, text in (
        (tmp_path, "is a directory"),
        (tmp_path / "no", "not found"),
        (tmp_path / ("x" * 999), "too long"),
    ):
        with pytest.raises(ConfigError, match=text):
            Config().load_file(path)
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        Config().load_file("a\0b")


@pytest.mark.parametrize("files", [
    {"a.config": "include a.config\n"},
    {"a.config": "include b.config\n", "b.config": "include c.py\n", "c.py": "config.load_file('./a.config')\n"},
])  # fmt: skip
def test_a_file_that_includes_itself(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="a config must not include itself: a.config -> .*a.config$"):
        load_config(["a.config"])


def test_a_file_may_be_included_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.config").write_text("include b.config,b.config\n")
    (tmp_path / "b.config").write_text("x 1\n")
    assert load_config(["a.config", "b.config"]).int("x", 0) == 1


def test_an_empty_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.config").write_text("\n# nothing\n")
    assert cli.main([str(tmp_path / "a.config")]) == 1
    assert capsys.readouterr().err == f"the config is empty: {tmp_path / 'a.config'}\n"


# Options of the command line that do not exist


def run(tmp_path: Path, text: str, *overrides: str) -> int:
    (tmp_path / "a.config").write_text(f"#!rnn.py\ntask = 'nop'\nlog_verbosity = 1\n{text}")
    return cli.main([str(tmp_path / "a.config"), *overrides])


@pytest.mark.parametrize("key, hint", [
    ("learning_rat", 'did you mean "learning_rate"?'),
    ("batchsize", 'did you mean "batch_size"?'),
    ("num_epoch", 'did you mean "num_epochs"?'),
    ("my_sise", 'did you mean "my_size"?'),
    ("qqq", "an option of one's own must occur in the config file"),
])  # fmt: skip
def test_unknown_options(key: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, "my_size = 3\nlearning_rate = 0.1\n", f"++{key}", "1") == 1
    assert capsys.readouterr().err == f"++{key}: unknown option '{key}'; {hint}\n"


def test_all_unknown_options_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path, "", "++num_epoch", "1", "++batchsize", "2") == 1
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["++num_epoch", "++batchsize"]


@pytest.mark.parametrize("text", [
    "own = 3",
    "x = config.value('own', '')",
    "def f():\n    return config.value('own', '')",
    "import own_module",
    "key = 'ow' + 'n'\nx = config.int(key, 0)",
])  # fmt: skip
def test_options_of_ones_own(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_module.py").write_text("def f(config):\n    return config.value('own', '')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(tmp_path, text + "\n", "++own", "1") == 0


# What the command line alone gives


def test_typed_values_of_the_command_line_are_literals(tmp_path: Path):
    (tmp_path / "a.config").write_text("#!rnn.py\nseen = config.typed_value('tensorboard_opts')\n")
    (tmp_path / "lines.config").write_text("grad_scaler {'a': 1}\n")
    files = [str(tmp_path / "a.config"), str(tmp_path / "lines.config")]
    config = load_config(files, [("tensorboard_opts", "{'log_every_n_train_steps': 2}"), ("model", "x")])
    assert config.typed["seen"] is None
    assert config.typed_value("tensorboard_opts") == {"log_every_n_train_steps": 2}
    assert config.typed_value("model") == "x" and config.typed_value("grad_scaler") is None
    config = load_config(files, [("tensorboard_opts", "{'log_every")])
    with pytest.raises(ConfigError, match="^tensorboard_opts: must be a Python literal, but is .* instead$"):
        config.typed_value("tensorboard_opts")
