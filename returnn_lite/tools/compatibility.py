"""docs/compatibility.md: what is supported and what is refused, and what becomes of the names in published configs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from returnn_lite.compat.module_names import MODULES, OLD_NAMES, OURS
from returnn_lite.config.options import IGNORED_KEYS, KNOWN_KEYS, REFUSED_KEYS
from returnn_lite.datasets.registry import DATASETS
from returnn_lite.datasets.registry import REFUSED as REFUSED_DATASETS
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core import legacy
from returnn_lite.layers.core.refused import REFUSED as REFUSED_LAYERS
from returnn_lite.layers.core.registry import layer_names
from returnn_lite.losses.base import REFUSED as REFUSED_LOSSES
from returnn_lite.losses.base import loss_names
from returnn_lite.optim.rule_optimizer import RULES
from returnn_lite.rec.cells.lookup import ELSEWHERE, known_units
from returnn_lite.schedule.controls import CONTROLS
from returnn_lite.tasks import FUNCTION_PREFIXES, PLANNED, TASKS
from returnn_lite.tools.support_status import NO_EFFECT, NO_OPTION, SUPPORTED, marker_of
from returnn_lite.vocab.create import VOCABULARIES

Counts = dict[str, dict[str, int]]  # kind of name -> name -> number of configs

HEAD = """# Compatibility

Written by `make docs` from the tables in the code: first the supported and the refused names, then the status of every
name that published configs use, ranked by frequency. Options of layers: [layers.md](layers.md); of datasets:
[datasets.md](datasets.md); of optimizers: [optimizers.md](optimizers.md).
"""
PUBLISHED = """# Published configs

The number of configs, out of 727 published ones, in which a name occurs, and its status here. Supported options are
listed at the end, with their layers.
"""


def read_counts(path: Path) -> Counts:
    """The counts in a file: `[kind of name]`, then lines `name number`. ConfigError for a line of another form."""
    counts: Counts = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("["):
            names = counts.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, count = line.rpartition(" ")
            if not name or not count.isdigit():
                raise ConfigError(f"{path}:{number}", f'must be "name number", but is {line!r} instead')
            names[name] = int(count)
    return counts


def page(counts: Counts) -> str:
    """The whole document."""
    return "\n".join([HEAD, *_supported(), *_refused(), PUBLISHED, *_published(counts)])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _supported() -> list[str]:
    old = [name for name in OLD_NAMES if not name.startswith("returnn.")]
    kinds = {
        "Tasks": [*TASKS, "nop", *(f"{prefix}NAME" for prefix in FUNCTION_PREFIXES)],
        "Layer classes": [name for name in layer_names() if "." not in name],
        "Recurrent units": known_units(),
        "Losses": loss_names(),
        "Datasets": DATASETS,
        "Vocabularies": VOCABULARIES,
        "Optimizers, besides all of torch.optim and Thinc": RULES,
        "Learning-rate controls": CONTROLS,
        "Global options": KNOWN_KEYS - IGNORED_KEYS - REFUSED_KEYS.keys(),
        "Modules that configs import": [
            *(name for name in MODULES if name.startswith("returnn.")),
            *OURS,
            *old,
            "tensorflow",
        ],
    }
    return ["# Supported\n", *(f"{kind}: {_code(names)}.\n" for kind, names in kinds.items())]


def _refused() -> list[str]:
    rows: list[tuple[str, str, str]] = []
    tables: Mapping[str, Mapping[str, str]] = {
        "task": dict.fromkeys(PLANNED, "not supported"),
        "layer class": {name: f"{reason}; use {instead}" for name, (reason, instead) in REFUSED_LAYERS.items()},
        "layer option": legacy.REFUSED,
        "recurrent unit": ELSEWHERE,
        "loss": REFUSED_LOSSES,
        "dataset": REFUSED_DATASETS,
        "global option": REFUSED_KEYS,
    }
    for kind, table in tables.items():
        rows += [(kind, f"`{name}`", reason) for name, reason in sorted(table.items())]
    return [
        "# Refused\n",
        "The error is one line that names the place where the name is used.\n",
        _table(("kind", "name", "why, and what to use instead"), rows),
        f"Accepted without effect, as global options: {_code(IGNORED_KEYS)}.\n",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def _published(counts: Counts) -> list[str]:
    parts, options = [], []
    for kind, names in counts.items():
        marker = marker_of(kind)
        marks = {name: marker(name) for name in names}
        if kind.startswith("options of "):
            options.append((kind.removeprefix("options of "), names, marks))
        elif kind == "global names that only configs use":
            known = {name: mark for name, mark in marks.items() if mark != NO_OPTION}
            parts.append(_ranked("global names that configs set and nothing reads", names, known))
        else:
            parts.append(_ranked(kind, names, marks))
    return [_summary(counts), *parts, _options(options)]


def _summary(counts: Counts) -> str:
    marks = [marker_of(kind)(name) for kind, names in counts.items() for name in names]
    refused = sum(mark.startswith("refused") for mark in marks)
    return f"Of {len(marks):,} names, {refused} are refused and {marks.count(NO_EFFECT)} are accepted without effect.\n"


def _ranked(kind: str, counts: Mapping[str, int], marks: Mapping[str, str]) -> str:
    rows = [(f"`{name}`", counts[name], mark) for name, mark in marks.items()]
    return f"## {kind.capitalize()}\n\n" + _table(("name", "configs", ""), rows)


def _options(kinds: Iterable[tuple[str, Mapping[str, int], Mapping[str, str]]]) -> str:
    rows = []
    for kind, counts, marks in kinds:
        good = [name for name, mark in marks.items() if mark == SUPPORTED]
        others = [f"`{name}` ({counts[name]}) {mark}" for name, mark in marks.items() if mark != SUPPORTED]
        text = "refused as a whole" if not good and len(set(marks.values())) == 1 else "; ".join(others)
        rows.append((kind, " ".join(f"`{name}` {counts[name]}" for name in good), text))
    return "## Options\n\n" + _table(("of", "supported, with the number of configs", "others"), rows)


def main(argv: Sequence[str]) -> int:
    """Writes the page to the file that is named, or prints it."""
    parser = argparse.ArgumentParser(prog="compatibility.py", description="Writes docs/compatibility.md.")
    parser.add_argument("counts", type=Path, help="docs/usage_counts.txt: the names, with numbers of configs")
    parser.add_argument("file", nargs="?", type=Path, help="default: standard output")
    args = parser.parse_args(argv)
    text = page(read_counts(args.counts))
    if args.file is None:
        print(text, end="")
    else:
        args.file.write_text(text, encoding="utf-8")
    return 0
