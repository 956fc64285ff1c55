"""Numbers of options that a training cannot do without: finite, and within a range."""

import math
import numbers

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError


def finite(
    path: str,
    value: ConfigValue,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> float:
    """The value, a float. ConfigError with this path unless it is a finite number (no text, no bool) of the range."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ConfigError(path, f"must be a number, but is {value!r} instead")
    number = float(value)
    if not math.isfinite(number):
        raise ConfigError(path, f"must be a finite number, but is {value!r} instead")
    too_low = low is not None and number < low or above is not None and number <= above
    if too_low or high is not None and number > high or below is not None and number >= below:
        limits = (("at least", low), ("above", above), ("at most", high), ("below", below))
        words = " and ".join(f"{name} {limit:g}" for name, limit in limits if limit is not None)
        if low is not None and high is not None:
            words = f"between {low:g} and {high:g}"
        raise ConfigError(path, f"must be {words}, but is {value!r} instead")
    return number


def whole(path: str, value: ConfigValue, low: int = 0) -> int:
    """The value, an int. ConfigError with this path unless it is a whole number from `low` on."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or float(value) != int(value) or value < low:
        raise ConfigError(path, f"must be a whole number from {low} on, but is {value!r} instead")
    return int(value)
