"""The rooms of the package, with the number and size of their files, as a table in ARCHITECTURE.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from returnn_lite.tools.renewed_page import renew

PACKAGE = Path(__file__).resolve().parent.parent
MARK = "rooms"


def sizes() -> dict[str, list[int]]:
    """The lines of each file, by room: a folder of the package, or "" for its own files."""
    found: dict[str, list[int]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = str(path.relative_to(PACKAGE).parent)
        found.setdefault("" if room == "." else room, []).append(len(path.read_text(encoding="utf-8").splitlines()))
    return found


def table() -> str:
    """Rows in Markdown: room, files, median and longest file in lines."""
    known = sizes()
    every = [size for room in known.values() for size in room]
    rows = ["| room | files | median lines | longest |", "|---|---|---|---|"]
    for room, lines in [("all", every), *known.items()]:
        name = room if room == "all" else f"`{room or '.'}`"
        rows.append(f"| {name} | {len(lines)} | {statistics.median(lines):.0f} | {max(lines)} |")
    return "\n".join(rows)


def main(argv: Sequence[str]) -> int:
    """Renews the table in the page that is named, or prints it."""
    return renew(argv, "room_sizes.py", "The rooms of the package, with number and size of their files.", MARK, table)
