"""Scores of an epoch: their keys, and the one that drives the control."""

from collections.abc import Iterator, Mapping, Sequence


def flatten(scores: Mapping[str, object]) -> dict[str, float]:
    """{"dev_score": {"cost:a": 1, "cost:b": 2}} -> dev_score_a, dev_score_b; a single loss keeps the plain key."""
    return {key: _number(key, value) for key, value in _items(scores)}


def _items(scores: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in scores.items():
        if not isinstance(value, Mapping):
            yield key, value
        elif len(value) == 1:
            yield key, next(iter(value.values()))
        else:
            yield from ((f"{key}_{name.partition(':')[2] or name}", number) for name, number in value.items())


def _number(key: str, value: object) -> float:
    value = plain(value)
    if not isinstance(value, int | float):
        raise TypeError(f"`{key}` must be a number, but is {value!r} instead")
    return float(value)


def plain(value: object) -> object:
    """A number of numpy or torch as Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def choose_error_key(error: Mapping[str, float], measures: Sequence[str]) -> str | None:
    """The measures first (also of layer "output"), then dev scores, other dev values, train scores, anything."""
    if not error or list(error) == ["old_format_score"]:
        return next(iter(error), None)
    names = [name + suffix for name in (*measures, "dev_score") for suffix in ("", "_output")]
    output = "dev_score_output/output"
    choices = [
        [name for name in names if name in error],
        sorted(key for key in error if key == output or key.startswith(output + "_")),
        sorted(key for key in error if key.startswith("dev_score_output/")),
        sorted(key for key in error if key.startswith("dev_")),
        [key for key in ("train_score", "train_score_output") if key in error],
        sorted(error),
    ]
    return next(found[0] for found in choices if found)
