"""Texts as numbers: torch has no tensors of texts, but can select, gather and repeat those of their numbers.

A text keeps its number for the life of the process, as Python interns its own; equal numbers are equal texts, and 0
is the empty text, so zeros are what a layer of texts starts from.
"""

from __future__ import annotations

from typing import Any

_TEXTS = [""]
_NUMBERS = {"": 0}


def number_of(text: str) -> int:
    """The number of a text, a new one if it has none yet."""
    if text not in _NUMBERS:
        _NUMBERS[text] = len(_TEXTS)
        _TEXTS.append(text)
    return _NUMBERS[text]


def numbers_of(texts: Any) -> Any:
    """The numbers of a text, or of nested lists of them."""
    return number_of(texts) if isinstance(texts, str) else [numbers_of(text) for text in texts]


def texts_of(numbers: Any) -> Any:
    """The texts of a number, or of nested lists of them."""
    return _TEXTS[numbers] if isinstance(numbers, int) else [texts_of(number) for number in numbers]
