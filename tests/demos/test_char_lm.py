"""The data of the demo with a language model of characters, from a folder with some source files."""

import re

import pytest

from tests.demos.demo import module, sequences

CONFIG = "char-lm/lstm.config"
SOURCE = 'def f(x):\n\treturn {"é": x[0]}  \n\n\nclass A:\n    pass\n'


@pytest.fixture(scope="module")
def char_lm():
    return module("char-lm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, char_lm):
    """Source files, some of which are left out."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(60):
        (folder / f"module{i}.py").write_text(f"# {i}\n{SOURCE}" * 10, "utf8")
    for left_out in ("test/test_a.py", "site-packages/b/c.py"):
        (folder / left_out).parent.mkdir(parents=True)
        (folder / left_out).write_text("import left_out\n")
    char_lm.make_data(folder / "data", source=folder, num_characters={"train": 5000, "dev": 500, "test": 900})
    return folder / "data"


def test_blocks(char_lm):
    lines = [f"{'x' * (i % 90)}y\n" for i in range(100)]
    lines[50] = "z" * 400 + "\n"
    found = list(char_lm.blocks("".join(lines)))
    assert max(map(len, found)) <= char_lm.BLOCK < min(len(a + b) for a, b in zip(found, found[1:], strict=False))
    assert "".join(found).replace(char_lm.NEWLINE, "\n") == "".join(lines[:50] + lines[51:])


def test_characters(char_lm):
    assert "".join(char_lm.blocks(SOURCE)) == 'def f(x):⏎        return {"?": x[0]}⏎⏎⏎class A:⏎    pass⏎'


@pytest.mark.parametrize(
    "name, in_config, wanted", [("train", "train", 5000), ("dev", "dev", 500), ("test", "eval", 900)]
)
def test_sequences(char_lm, folder, name, in_config, wanted):
    lines = (folder / f"{name}.txt").read_text("utf8").splitlines()
    assert wanted <= sum(map(len, lines)) < wanted + char_lm.BLOCK
    labels = "■⏎" + "".join(map(chr, range(32, 127)))
    found = sequences(CONFIG, folder, in_config)
    texts = ["".join(labels[i] for i in seq["data"]) for seq in found.values()]
    assert texts == [line + "■" for line in lines]
    assert not any("left_out" in text for text in texts)


def test_blocks_are_mixed(folder):
    """The files are longer than two blocks, so one file after another would be eight of them."""
    files = re.findall(r"# (\d+)⏎", (folder / "train.txt").read_text("utf8"))
    assert len(set(files)) > 10


def test_the_split_goes_by_names(char_lm, folder):
    parts = {name: char_lm.source_files(folder.parent, name) for name in ("train", "dev", "test")}
    files = [file for part in parts.values() for file in part]
    assert len(files) == len(set(files)) == 60 and all(parts.values())
    assert len(parts["train"]) > len(parts["test"]) > len(parts["dev"])


def test_nothing_to_read(char_lm, tmp_path):
    with pytest.raises(SystemExit, match="no source files for train"):
        char_lm.make_data(tmp_path / "data", source=tmp_path)
