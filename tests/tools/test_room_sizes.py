"""The table of rooms in ARCHITECTURE.md."""

from pathlib import Path

from returnn_lite.tools.renewed_page import renewed
from returnn_lite.tools.room_sizes import MARK, sizes, table

PAGE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"


def test_every_room_stands_in_the_page():
    text = PAGE.read_text()
    assert [room for room in sizes() if f"| `{room or '.'}` |" not in text] == []


def test_only_the_table_changes():
    page = "# A\n\n<!-- rooms -->\nold\n<!-- end of rooms -->\n\n## B\n"
    made = renewed(page, MARK, table())
    assert made.startswith("# A\n\n<!-- rooms -->\n| room |") and made.endswith("<!-- end of rooms -->\n\n## B\n")
    assert "old" not in made and table() in made and renewed(made, MARK, table()) == made
