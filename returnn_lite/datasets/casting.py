"""Numbers in another dtype, refused where they would silently become other numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from returnn_lite.datasets.options import DataError

NUMBERS = "biuf"  # kinds of numpy dtypes
AS_IT_IS = "as it is"  # in place of a dtype: that of the data, as far as torch has it
TORCH_LACKS = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def cast(array: np.ndarray, dtype: str, place: str, what: str) -> np.ndarray:
    """The array in an integer or float dtype. DataError (`place`: `what` …) for numbers that this dtype cannot hold."""
    problem = misfit(array, np.dtype(dtype))
    if problem is not None:
        raise DataError(place, f"{what} {problem}")
    return array.astype(dtype, copy=False)


def class_indices(found: Sequence[int], dtype: str = "int32", key: str = "classes") -> np.ndarray:
    """What a vocabulary gives for a text, [N]. DataError (`key`: …) for what are no indices."""
    return cast(np.asarray(found), dtype, key, "the classes that the vocabulary gives")


def misfit(array: np.ndarray, dtype: np.dtype, classes: int | None = None) -> str | None:
    """What is wrong with numbers for a dtype, as the end of a sentence; None if all of them fit.

    Integers must be whole and in range, which is 0 … `classes` - 1 where that is given; floats must stay finite.
    """
    if array.dtype.kind not in NUMBERS:
        return f"must be numbers, but holds {_shown(array.ravel()[:1])} instead" if array.size else None
    if dtype.kind not in NUMBERS or not array.size:
        return None
    wrong = _unfit_floats(array, dtype) if dtype.kind == "f" else _unfit_integers(array, dtype, classes)
    return None if wrong is None else _problem(array[wrong], dtype, classes)


def _problem(wrong: np.ndarray, dtype: np.dtype, classes: int | None) -> str:
    if dtype.kind == "f":
        return f"must be numbers that {dtype} can hold, but holds {_shown(wrong)}"
    if classes:
        return f"must be class indices from 0 to {classes - 1}, but holds {_shown(wrong)}"
    low, high = _range(dtype, None)
    return f"must be whole numbers from {low} to {high} ({dtype}), but holds {_shown(wrong)}"


def _shown(wrong: np.ndarray) -> str:
    value = wrong.ravel()[:1].tolist()
    return "NaN" if value and value[0] != value[0] else repr(value[0]) if value else "nothing"


def _range(dtype: np.dtype, classes: int | None) -> tuple[int, int]:
    """The smallest and largest number allowed."""
    if classes:
        return 0, classes - 1
    if dtype.kind == "b":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def fits(array: np.ndarray, dtype: np.dtype, classes: int | None = None) -> bool:
    """Whether an integer dtype holds all numbers of an array of numbers, and they are classes; two quick looks."""
    if not array.size:
        return True
    low, high = _range(dtype, classes)
    in_range = bool(array.min() >= low and array.max() < high + 1)  # False for NaN
    return in_range and (array.dtype.kind != "f" or bool((array == np.rint(array)).all()))


def _unfit_integers(array: np.ndarray, dtype: np.dtype, classes: int | None) -> np.ndarray | None:
    if fits(array, dtype, classes):
        return None
    low, high = _range(dtype, classes)
    wrong: np.ndarray = ~((array >= low) & (array < high + 1))
    if array.dtype.kind == "f":
        wrong |= array != np.rint(array)
    return wrong


def _unfit_floats(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The finite numbers that become infinite."""
    if np.can_cast(array.dtype, dtype):
        return None
    with np.errstate(over="ignore"):
        wrong: np.ndarray = np.isfinite(array) & ~np.isfinite(array.astype(dtype))
    return wrong if wrong.any() else None


def kept_dtype(arrays: Sequence[np.ndarray]) -> str:
    """The dtype of arrays that are to stay as they are, of which torch has all: the widest of several; "string" for
    texts."""
    if any(array.dtype.kind not in NUMBERS for array in arrays):
        return "string"
    found = str(np.result_type(*{array.dtype for array in arrays}))
    return TORCH_LACKS.get(found, found)


def collecting_dtype(arrays: Sequence[np.ndarray], dtype: str) -> np.dtype:
    """What arrays are put together in before they become `dtype`: a wider dtype where integers must be checked."""
    target, sources = np.dtype(dtype), {array.dtype for array in arrays}
    numbers = all(source.kind in NUMBERS for source in sources)
    if target.kind == "f" or not numbers or all(np.can_cast(source, target) for source in sources):
        return target
    return np.result_type(*sources)
