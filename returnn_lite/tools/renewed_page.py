"""A page of the documentation of which a part, between two marks, is made by a program."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path


def renewed(page: str, name: str, made: str) -> str:
    """The page with what was made between the marks of this name, lines of their own."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{made.rstrip()}\n{end}{after}"


def renew(argv: Sequence[str], program: str, what: str, name: str, make: Callable[[], str]) -> int:
    """A command line: renews what is between the marks in the page that is named, or prints it."""
    parser = argparse.ArgumentParser(prog=program, description=what)
    parser.add_argument("page", nargs="?", type=Path, help="its part is renewed; default: standard output")
    page: Path | None = parser.parse_args(argv).page
    if page is None:
        print(make())
    else:
        page.write_text(renewed(page.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
    return 0
