"""`Part`: a plain torch module with what it takes and gives, and what the network says to examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch.export import ExportedProgram

from returnn_lite.errors import ConfigError
from returnn_lite.export.ports import Port
from returnn_lite.export.program import Arrays, exported, reason
from returnn_lite.to_torch.checks import difference, layer_of, loaded_module
from returnn_lite.to_torch.module import Module


@dataclass(frozen=True)
class Example:
    """A batch: what goes in, and what the network makes of it; `name`: for error texts.

    `short`: so many frames, for which the program need not be right; 0: it must be.
    """

    name: str
    inputs: Arrays
    wanted: Arrays
    short: int = 0


@dataclass
class Found:
    """What a check has found: the largest relative difference, and how many frames there must be at least."""

    gap: float = 0.0
    min_frames: int = 1

    def add(self, other: Found) -> None:
        """Takes the worse of both."""
        self.gap, self.min_frames = max(self.gap, other.gap), max(self.min_frames, other.min_frames)


@dataclass(frozen=True)
class Part:
    """What is exported as one program. `name`: "" or what is put behind the file's name, `module`: see `to_torch`."""

    name: str
    module: Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    examples: Sequence[Example]

    def program(self) -> ExportedProgram:
        """The exported program, which is right for all examples. ConfigError for what cannot be exported."""
        for layer in self.module.loops:
            raise ConfigError(layer, "cannot be exported: its loop turns as often as sequences are long")
        first = self.examples[0]
        inputs = {port.name: first.inputs[port.name] for port in self.inputs}
        try:
            return exported(loaded_module(with_symbols(self.module)), self.inputs, inputs)
        except Exception as exc:
            where = layer_of(self.module, exc) or "network"
            raise ConfigError(where, f"cannot be exported: {reason(exc)}") from exc

    def check(self, run: Callable[[Arrays], Arrays], what: str) -> Found:
        """How well `run` does on the examples. ConfigError where the difference is too large."""
        found = Found()
        for example in self.examples:
            try:
                found.add(Found(self._difference(example, run, what)))
            except ConfigError:
                if not example.short:
                    raise
                found.add(Found(min_frames=example.short + 1))
        return found

    def _difference(self, example: Example, run: Callable[[Arrays], Arrays], what: str) -> float:
        where = f"{what}, {example.name}"
        try:
            made = run({port.name: example.inputs[port.name] for port in self.inputs})
        except Exception as exc:
            raise ConfigError("export", f"{where}: {reason(exc)}; nothing was written") from exc
        gaps = (difference(made[k], x, f"{where}: {k}", task="export") for k, x in example.wanted.items())
        return max(gaps, default=0.0)


def with_symbols(module: Module) -> Module:
    """The module whose numbers that are read off tensors stay symbols when it is traced: `x.item()` for `int(x)`."""
    return replace(module, text=re.sub(r"\bint\((\w+)\)", r"\1.item()", module.text))
