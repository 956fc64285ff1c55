"""The types of what configs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

# Any value at all: it is checked where it is read, so that the error can name the option.
ConfigValue: TypeAlias = Any
# A dict of options.
ConfigDict: TypeAlias = Mapping[str, Any]
# A dict of options that its reader owns: it fills in what is left out, and takes out what it has read.
ConfigOptions: TypeAlias = dict[str, Any]
# A function that a config gives: what it takes and returns is said where it is called, and what it returns is checked.
ConfigFunction: TypeAlias = Callable[..., Any]
# The description of a net, by layer: each layer checks what it is given.
NetDict: TypeAlias = dict[str, Any]
# What eval strings may name: functions, modules, tensors, numbers, by name.
EvalNames: TypeAlias = Mapping[str, Any]
