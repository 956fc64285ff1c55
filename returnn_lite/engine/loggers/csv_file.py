"""Scalars as tables that spreadsheets and pandas read."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable

from returnn_lite.config_value import ConfigDict
from returnn_lite.engine.loggers.sink import Values, require_known_options
from returnn_lite.files import write_atomically

Row = tuple[int, str, float | str]


class CsvFiles:
    """`<base>.steps.csv` and `<base>.epochs.csv`: a line for each scalar, with step or epoch, name and value."""

    name = "csv"

    def __init__(self, model: str, options: ConfigDict) -> None:
        require_known_options(self.name, options, ["base"], texts=["base"])
        base = str(options.get("base", model))
        self.tables = {"epoch": Table(f"{base}.epochs.csv", "epoch"), "step": Table(f"{base}.steps.csv", "step")}

    def begin(self, epoch: int, global_step: int) -> None:
        """Drops the lines of what is repeated."""
        for table, first in zip(self.tables.values(), (epoch, global_step), strict=True):
            table.cut(first)

    def step(self, global_step: int, values: Values) -> None:
        """Lines of a step."""
        self.tables["step"].add(global_step, values)

    def epoch(self, epoch: int, values: Values) -> None:
        """Lines of an epoch."""
        self.tables["epoch"].add(epoch, values)

    def close(self) -> None:
        """Nothing is kept open."""


class Table:
    """One of them: `column` is the name of its first column."""

    def __init__(self, path: str, column: str) -> None:
        self.path, self.column = path, column
        self.known = set[tuple[int, str]]()

    def cut(self, first: int) -> None:
        """Keeps the lines before `first`; makes the file if there is none."""
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        kept = [row for row in self.rows() if row[0] < first]
        self.known = {(number, name) for number, name, _ in kept}
        text = lines([(self.column, "scalar", "value"), *kept])
        write_atomically(self.path, lambda file: file.write(text.encode()))

    def rows(self) -> Iterable[Row]:
        """The lines of the file that are whole."""
        if not os.path.isfile(self.path):
            return
        with open(self.path, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 3 and row[0].isdecimal():
                    yield int(row[0]), row[1], row[2]

    def add(self, number: int, values: Values) -> None:
        """Appends lines, for names that there are none of yet."""
        new = [(number, name, value) for name, value in values.items() if (number, name) not in self.known]
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            file.write(lines(new))


def lines(rows: Iterable[tuple[object, ...]]) -> str:
    """Rows as text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
