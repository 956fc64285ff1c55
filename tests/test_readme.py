"""README.md: its numbers are recorded elsewhere, its config is that of the demo, its pictures are small."""

import re
from pathlib import Path

import pytest

from returnn_lite.config import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")


def table(head: str) -> list[list[str]]:
    """The cells of the rows of the table whose first line begins with `head`."""
    lines = README[README.index(f"\n{head}") + 1 :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    "head, column, page",
    [
        ("| | returnn_lite | with products", 1, "benchmarks/README.md"),
        ("| | returnn_lite | with products", 2, "benchmarks/README.md"),
        ("| command | model |", 2, "demos/README.md"),
    ],
)
def test_numbers_are_recorded(head, column, page):
    recorded = set(NUMBER.findall((ROOT / page).read_text()))
    rows = table(head)
    assert len(rows) > 5
    for row in rows:
        assert set(NUMBER.findall(row[column])) <= recorded, f"README.md: {row} is not in {page}"


def test_others_are_not_measured():
    for row in table("| | returnn_lite | with products"):
        assert row[4:] == ["not measured", "not measured"]


def test_the_config_is_that_of_the_demo(tmp_path):
    (code,) = re.findall(r"```python\n(#!rnn.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "readme.config").write_text(code)
    shown, demo = (load_config([str(path)]) for path in (tmp_path / "readme.config", ROOT / "demos/12ax/12ax.config"))
    for key in ("train", "dev", "extern_data", "network", "optimizer", "num_epochs", "batch_size", "model"):
        assert shown.typed[key] == demo.typed[key]


def test_pictures_are_small():
    pictures = [ROOT / name for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)]
    assert pictures and all(path.stat().st_size < 200_000 for path in pictures)
