"""The first line of a loop, and what its elements of lists are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from returnn_lite.to_torch.scope import Scope


def elements_of(lists: Sequence[str], turn: str, scope: Scope, line: Callable[[str], None]) -> dict[str, str]:
    """What the elements of a turn are called, by lists; with `turn`, they are picked by its number.

    `line` adds a line before the loop.
    """
    found = {}
    for listed in lists:
        if turn and "[" in listed:  # cut once, not in each turn
            cut = scope.fresh(f"{_stem(listed)}_used")
            line(f"{cut} = {listed}")
            found[listed] = f"{cut}[{turn}]"
        else:
            found[listed] = f"{listed}[{turn}]" if turn else scope.fresh(f"{_stem(listed)}_t")
    return found


def head(turn: str, number: str, elements: Mapping[str, str], body: Sequence[str]) -> str:
    """The line that begins a loop: so many turns, or one for each element."""
    if number:
        return f"for {turn} in range({number}):"
    names, listed = ", ".join(elements.values()), ", ".join(elements)
    if len(elements) > 1:
        listed = f"zip({listed})"
    if any(re.search(rf"\b{turn}\b", line) for line in body):
        return f"for {turn}, {f'({names})' if len(elements) > 1 else names} in enumerate({listed}):"
    return f"for {names} in {listed}:"


def _stem(listed: str) -> str:
    """The name of a list without what says that it is one."""
    name = re.match(r"\w*", listed)
    return re.sub(r"(_all)?(_[0-9]+)?$", "", name.group()) if name else ""
