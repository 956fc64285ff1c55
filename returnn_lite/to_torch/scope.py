"""What the code of a function, or of the body of a loop, may name."""

from __future__ import annotations

import keyword
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from returnn_lite.errors import ConfigError
from returnn_lite.to_torch.recorder import Call, Value
from returnn_lite.to_torch.sizes import Samples


class Unwritable(Exception):  # noqa: N818 - it says what cannot be written
    """Something that no file could compute; `layer` is where."""

    def __init__(self, message: str, layer: str = "") -> None:
        super().__init__(message)
        self.layer = layer

    def as_error(self) -> ConfigError:
        """The error for users."""
        return ConfigError(self.layer or "network", f"cannot be written as a torch module: {self}")


@dataclass
class Scope:
    """`names` of Values, numbers and lists; `known` sizes, and `numbers` that were read off tensors, by their samples.

    `samples`: how many there are of each number. `turn_names`: what a turn reads of the list elements of its number and
    of the turn before, by call and leaf. `elements` of lists whose length depends on the data: name, number, length.
    `device`: an expression.
    """

    device: str
    names: dict[Hashable, str] = field(default_factory=dict)
    known: dict[Samples, str] = field(default_factory=dict)
    numbers: dict[Samples, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    turn_names: dict[tuple[int, int], str] = field(default_factory=dict)
    elements: dict[Value, tuple[str, int, int]] = field(default_factory=dict)
    in_loop: bool = False

    def fresh(self, wish: str) -> str:
        """A name that nothing has yet."""
        wish = re.sub(r"\W+", "_", wish).strip("_") or "x"
        if keyword.iskeyword(wish) or wish in ("torch", "F", "self") or wish[0].isdigit():
            wish = f"x_{wish}"
        name, count = wish, 2
        while name in self.taken:
            name, count = f"{wish}_{count}", count + 1
        self.taken.add(name)
        return name

    def add_sizes(self, name: str, values: Sequence[Value]) -> None:
        """The sizes of a tensor, in all samples, are known from now on."""
        if len({len(v.shape) for v in values}) == 1:
            for axis, sizes in enumerate(zip(*(v.shape for v in values), strict=True)):
                self.known.setdefault(sizes, f"{name}.shape[{axis}]")

    def body(self, turns: Sequence[int], turn: str, turn_names: dict[tuple[int, int], str]) -> Scope:
        """The scope of a loop's body: a sample for each turn of each sample; `turn` is the name of its number."""

        def repeated(known: dict[Samples, str]) -> dict[Samples, str]:
            return {tuple(v for v, n in zip(s, turns, strict=True) for _ in range(n)): t for s, t in known.items()}

        known = repeated(self.known)
        known[tuple(i for n in turns for i in range(n))] = turn
        names, taken = dict(self.names), set(self.taken)
        return Scope(self.device, names, known, repeated(self.numbers), taken, turn_names, self.elements, in_loop=True)

    def element(self, values: Sequence[Value]) -> str | None:
        """The element of a list that these are in all samples, counted from its start or end."""
        found = [self.elements.get(x) for x in values]
        if any(x is None or found[0] is None or x[0] != found[0][0] for x in found):
            return None
        places = {(number, number - length) for _, number, length in filter(None, found)}
        starts, ends = {start for start, _ in places}, {end for _, end in places}
        name = found[0][0] if found[0] is not None else ""
        return f"{name}[{starts.pop()}]" if len(starts) == 1 else f"{name}[{ends.pop()}]" if len(ends) == 1 else None


def layer_name(call: Call) -> str:
    """The name of the layer that a call computes for, "" if there is none."""
    names = re.findall(r'\["([^"]*)"\]', call.layer)
    return names[-1] if names else ""
