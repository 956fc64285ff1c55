"""Values of options against annotations: what each kind takes, what it is called, what becomes of a value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from returnn_lite.config.option_types import (
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Rate,
    converted,
    option_kinds,
    wrong_values,
)

NAN = float("nan")


@dataclass
class Options:
    """One option of each kind."""

    flag: bool = False
    count: PositiveInt = 1
    start: NaturalInt | None = None
    rate: Rate = 0.0
    factor: PositiveFloat = 1.0
    exact: Annotated[float, Range(-1, 1)] = 0.0
    word: Literal["same", "valid"] = "same"
    name: str | None = None
    sizes: Sequence[int] = ()
    table: Mapping[str, int] | None = None
    function: Callable[..., Any] | None = None
    anything: Any = None
    late_none: int = None  # type: ignore[assignment]


KINDS = option_kinds(Options)
RIGHT = {
    "flag": [True, False, 0, 1, None, np.bool_(True)],
    "count": [1, 2**31 - 1, np.int64(3), np.array(4)],
    "start": [0, None],
    "rate": [0, 0.5, np.float32(0.25)],
    "factor": [1e-9, 3, float("inf")],
    "exact": [-1, 1],
    "word": ["same"],
    "name": ["", "x", None],
    "sizes": [[1, 2], (3,), [], range(2)],
    "table": [{"a": 1}, {}, None],
    "function": [print, None],
    "anything": [NAN, object()],
    "late_none": [None, 3],
}
WRONG = {
    "flag": ["perhaps", 2, 0.5, [], NAN],
    "count": [0, -3, "3", 2.5, True, None, 2**31, 10**30, NAN, [1]],
    "start": [-1, "", {}],
    "rate": [1, -0.1, NAN, "0.5", True],
    "factor": [0, -1, NAN],
    "exact": [1.1, None],
    "word": ["smae", 1, ["same"]],
    "name": [1, b"x"],
    "sizes": [3, "12", [1, "2"], [NAN]],
    "table": [{1: 1}, {"a": "b"}, [("a", 1)]],
    "function": ["print", 3],
    "late_none": ["3"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in RIGHT.items() for value in values])
def test_right(name: str, value: Any):
    assert wrong_values(KINDS, {name: value}, "path") == []


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong(name: str, value: Any):
    (error,) = wrong_values(KINDS, {name: value}, "path")
    assert str(error).startswith(f"path: `{name}` must be ") and "\n" not in str(error)


@pytest.mark.parametrize("name, value, text", [
    ("count", "3", "`count` must be an int from 1 to 2**31 - 1, but is '3' instead"),
    ("rate", 1.5, "`rate` must be a number of at least 0 and below 1, but is 1.5 instead"),
    ("word", "smae", "`word` must be one of 'same', 'valid', but is 'smae' instead; did you mean \"same\"?"),
    ("sizes", 3, "`sizes` must be a list of ints, but is 3 instead"),
    ("table", 3, "`table` must be a dict of strs to ints or None, but is 3 instead"),
    ("flag", "a\nb" * 100, None),
])  # fmt: skip
def test_text(name: str, value: Any, text: str | None):
    (error,) = wrong_values(KINDS, {name: value}, "path")
    assert len(error.message) < 200 and text in (None, error.message)


def test_all_wrong_values_are_told_and_unknown_names_are_left_alone():
    errors = wrong_values(KINDS, {"flag": "x", "count": 0, "other": 3}, "path")
    assert [error.message.split("`")[1] for error in errors] == ["flag", "count"]


def test_values_become_those_of_python():
    given = {"flag": None, "count": np.int64(3), "factor": 10**30, "start": None, "other": 1}
    made = converted(KINDS, given)
    assert made == {"flag": False, "count": 3, "factor": 1e30, "start": None, "other": 1}
    assert type(made["flag"]) is bool and type(made["count"]) is int and type(made["factor"]) is float


def test_annotations_that_name_nothing_check_nothing():
    def function(*, size: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert option_kinds(function) == {}
