#!/usr/bin/env python3
"""Writes the reference of all layer classes, in Markdown: `layer_reference.py [FILE]` (default: standard output).

Everything is read off the classes: config words, what they do, options with their defaults.
"""

import inspect
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import returnn_lite.catalog  # noqa: E402, F401  (fills the registry)
from returnn_lite.layers.options import CommonOptions  # noqa: E402
from returnn_lite.layers.registry import layer_class, layer_names, own_options  # noqa: E402


def option_text(option: inspect.Parameter) -> str:
    """`size`, or `size = 3` where there is a default."""
    return f"`{option.name}`" if option.default is option.empty else f"`{option.name} = {option.default!r}`"


def layer_text(words: list[str], cls: type) -> str:
    """The section of one class, known under these config words."""
    options = ", ".join(option_text(option) for option in own_options(cls).values()) or "none"
    notes = [f"Options: {options}."]
    if cls.recurrent:
        notes.append("Recurrent: batches keep sequences apart.")
    if cls.lets_padding_through:
        notes.append("Frames near the end of a sequence see the padding behind it.")
    return f"### {', '.join(words)}\n\n{inspect.getdoc(cls) or ''}\n\n" + "  \n".join(notes) + "\n"


def reference() -> str:
    """The whole page: the options of every layer, then the classes by family (file)."""
    words: dict[type, list[str]] = defaultdict(list)
    for name in layer_names():
        words[layer_class(name, name)].append(name)
    families: dict[str, list[str]] = defaultdict(list)
    for cls, names in words.items():
        families[cls.__module__.removeprefix("returnn_lite.")].append(layer_text(names, cls))
    common = ", ".join(f"`{field.name.rstrip('_')}`" for field in fields(CommonOptions))
    parts = ["# Layers\n", "Written by `make docs`.\n", f"Options of every layer: {common}.\n"]
    for family in sorted(families):
        parts += [f"## {family}\n", *families[family]]
    return "\n".join(parts)


def main() -> None:
    """Writes the page to the file that is named, or prints it."""
    if len(sys.argv) > 1:
        target = Path(sys.argv[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(reference())
    else:
        print(reference())


if __name__ == "__main__":
    main()
