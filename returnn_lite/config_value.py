"""The types of what configs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

# Any value at all: it is checked where it is read, so that the error can name the option.
ConfigValue: TypeAlias = Any
# A dict of options.
ConfigDict: TypeAlias = Mapping[str, Any]
