"""Checkpoint formats of other programs. Who knows one registers it here; the engine itself knows `.pt` and `.npz`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Format:
    """name: the word of `checkpoint_format`; suffix: of the file that says that the checkpoint is there; read, write:
    from and to the base name of a checkpoint."""

    name: str
    suffix: str
    read: Callable[[str], dict[str, np.ndarray]]
    write: Callable[[str, Arrays], None]


FORMATS: dict[str, Format] = {}


def register(form: Format) -> None:
    """Makes a format known, or replaces the one of the same name."""
    FORMATS[form.name] = form


def format_of(path: str) -> Format | None:
    """The format that a file belongs to by its suffix."""
    return next((form for form in FORMATS.values() if path.endswith(form.suffix)), None)
