"""Text of result files: the readable dict form, and hypotheses as text."""

from collections.abc import Mapping, Sequence

import numpy as np


def better_repr(value: object) -> str:
    """A Python expression with dicts and lists over several lines where they are long; dict keys sorted.

    nan and inf are written as float('nan') and so on; numpy's float32 numbers as plain, short ones.
    """
    if isinstance(value, Mapping):
        return _over_lines("{", "}", [f"{key!r}: {better_repr(item)}" for key, item in sorted(value.items())])
    if isinstance(value, list):
        return _over_lines("[", "]", [better_repr(item) for item in value])
    if isinstance(value, tuple):
        return f"({', '.join(better_repr(item) for item in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, np.generic):
        return plain_number(value)
    if isinstance(value, float):
        return _float_text(repr(value))
    return repr(value)


def _over_lines(left: str, right: str, items: Sequence[str]) -> str:
    if sum(map(len, items)) >= 40:
        return "".join([left, "\n", *(f"{item},\n" for item in items), right])
    return left + ", ".join(items) + right


def plain_number(value: np.generic) -> str:
    """A numpy number as Python writes it; float32 with the digits that tell it apart: -0.9892766."""
    if isinstance(value, np.floating):
        return _float_text(str(float(np.format_float_scientific(value, unique=True))))
    return repr(value.item())


def _float_text(text: str) -> str:
    return f"float('{text}')" if text in ("nan", "inf", "-inf") else text
