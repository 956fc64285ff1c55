"""`State`: nested values by name, as recurrent modules and loops pass them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tree

from returnn_lite.frontend.tensor import Tensor


class State(dict[str, Any]):
    """A dict whose keys are also attributes. Made of keywords, a dict, pairs, or of one value, then "state".

    Functions of `tree` make the same class again of pairs: a derived class must pass positional arguments on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not args:
            super().__init__(**kwargs)
            return
        if len(args) > 1:
            raise TypeError(f"a State is made of one value at most, but got {len(args)}")
        (value,) = args
        if isinstance(value, Mapping):
            super().__init__(value, **kwargs)
        elif isinstance(value, Iterable) and not isinstance(value, Tensor | str):
            super().__init__(value, **kwargs)
        else:
            super().__init__(state=value, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}; known: {', '.join(map(repr, self)) or 'none'}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        del self[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    def flatten_tensors(self) -> list[Tensor]:
        """All tensors in it."""
        return [value for value in tree.flatten(self) if isinstance(value, Tensor)]


class LstmState(State):
    """The state of an LSTM: `h` the output, `c` the cell."""

    def __init__(self, *args: Any, h: Any = None, c: Any = None) -> None:
        super().__init__(*args)
        if not args:
            self.h = h
            self.c = c
