"""The types of what is kept of a training for the next run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

# Tensors and plain values, nested in dicts and lists: each part of a training knows what it has written itself.
State: TypeAlias = dict[str, Any]
# The same, as it is read back.
SavedState: TypeAlias = Mapping[str, Any]
