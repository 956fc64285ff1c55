"""What the register of layers knows, as text: `rnn.py --list-layers`, `--help-layer NAME`, and docs/layers.md."""

from __future__ import annotations

import argparse
import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import returnn_lite.catalog  # noqa: F401  (fills the register)
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.options import CommonOptions
from returnn_lite.layers.core.registry import layer_class, layer_names, own_options


def classes() -> dict[type[Layer], list[str]]:
    """All layer classes with their config words; internal ones (with a dot) are left out."""
    words: dict[type[Layer], list[str]] = defaultdict(list)
    for name in layer_names():
        if "." not in name:
            words[layer_class(name, name)].append(name)
    return words


def option_text(option: inspect.Parameter) -> str:
    """`size`, or `size = 3` where there is a default."""
    return f"`{option.name}`" if option.default is option.empty else f"`{option.name} = {option.default!r}`"


def describe_layer(name: str) -> str:
    """The section of one class: what it does, with shapes, and its options. Raises ConfigError for an unknown word."""
    cls = layer_class(name, "--help-layer")
    return _section(classes()[cls], cls)


def _section(words: Sequence[str], cls: type[Layer]) -> str:
    options = ", ".join(option_text(option) for option in own_options(cls).values()) or "none"
    notes = [f"Options: {options}."]
    if cls.sources == "none" or not cls.default_from:
        notes.append("It has no source by default." if cls.sources != "none" else "It takes no `from`.")
    if cls.recurrent:
        notes.append("Recurrent: batches keep sequences apart.")
    if cls.lets_padding_through:
        notes.append("Lets padding through: frames near the end of a sequence see the padding after it.")
    return f"### {', '.join(words)}\n\n{inspect.getdoc(cls) or ''}\n\n" + "  \n".join(notes) + "\n"


def list_layers() -> str:
    """One line per class: its words, and the first line of what it says of itself."""
    rows = [(", ".join(words), (inspect.getdoc(cls) or "").partition("\n")[0]) for cls, words in classes().items()]
    width = min(max(len(words) for words, _ in rows), 30)
    lines = [f"{words:<{width}}  {text}" for words, text in sorted(rows)]
    return "\n".join([*lines, f"{len(rows)} layer classes; rnn.py --help-layer NAME shows the options of one", ""])


def reference() -> str:
    """The whole page: the options of every layer, the classes by family (file), and those that let padding through."""
    families: dict[str, list[str]] = defaultdict(list)
    for cls, words in classes().items():
        families[cls.__module__.removeprefix("returnn_lite.")].append(_section(words, cls))
    common = ", ".join(f"`{field.name.rstrip('_')}`" for field in fields(CommonOptions))
    leaky = sorted(words[0] for cls, words in classes().items() if cls.lets_padding_through)
    parts = [
        "# Layers\n",
        "Written by `make docs` from the classes themselves; `rnn.py --help-layer NAME` prints the same text.\n",
        f"Options of every layer: {common}.\n",
        "Layers that let padding through, as in the reference (frames near a sequence end see the padding after it): "
        + ", ".join(f"`{name}`" for name in leaky)
        + ".\n",
    ]
    for family in sorted(families):
        parts += [f"## {family}\n", *families[family]]
    return "\n".join(parts)


def main(argv: Sequence[str]) -> int:
    """Writes the page to the file that is named, or prints it."""
    parser = argparse.ArgumentParser(
        prog="layer_reference.py", description="Writes the reference of all layer classes, in Markdown."
    )
    parser.add_argument("file", nargs="?", type=Path, help="default: standard output")
    target: Path | None = parser.parse_args(argv).file
    if target is None:
        print(reference(), end="")
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(reference(), encoding="utf-8")
    return 0
