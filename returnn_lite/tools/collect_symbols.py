"""Which words or characters texts have, how often, and a vocabulary of them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from returnn_lite.datasets.audio.bliss_corpus import is_bliss, segments
from returnn_lite.errors import ConfigError
from returnn_lite.reading import read_bytes
from returnn_lite.tools.common import Progress, output_file, tool


def lines_of(path: str) -> Iterator[str]:
    """The texts of a Bliss corpus, or the lines of a text file, without white space around; plain or `.gz`."""
    content = read_bytes(path, "corpus")
    if is_bliss(content):
        yield from (segment.text for segment in segments(content, path))
        return
    try:
        yield from (line.strip() for line in content.decode("utf8").splitlines())
    except UnicodeDecodeError as exc:
        raise ConfigError(path, f"must be UTF-8 text: {exc}") from None


def count_symbols(paths: Sequence[str], split: Callable[[str], Iterable[str]]) -> Counter[str]:
    """How often each symbol occurs."""
    counts: Counter[str] = Counter()
    progress = Progress("lines")
    for path in paths:
        for line in lines_of(path):
            counts.update(split(line))
            progress.step()
    progress.end()
    return counts


def _run(name: str, what: str, split: Callable[[str], Iterable[str]], argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog=name, description=f"Counts the {what} of corpora, and makes a vocabulary.")
    add = parser.add_argument
    add("corpus", nargs="+", help="Bliss corpora or text files, plain or .gz")
    add(
        "--output",
        metavar="FILE",
        help="the vocabulary is written here: a Python dict {symbol: index}, the most frequent first",
    )
    add("--add_symbol", action="append", default=[], help="symbols to put first, such as [END]; may be repeated")
    add("--min_count", type=int, default=1, help="rarer symbols are left out (1)")
    add("--top", type=int, default=20, help="number of symbols to print with their counts (20)")
    args = parser.parse_args(argv)
    counts = count_symbols(args.corpus, split)
    ranked = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    kept = [s for s in ranked if counts[s] >= args.min_count and s not in args.add_symbol]
    covered = sum(counts[symbol] for symbol in kept) / max(counts.total(), 1)
    print(f"{counts.total()} {what}, {len(counts)} different; {len(kept)} are kept, {covered:.2%} of the text")
    for symbol in ranked[: args.top]:
        print(f"{counts[symbol]:8} {symbol!r}")
    if args.output:
        labels = list(dict.fromkeys([*args.add_symbol, *kept]))
        with output_file(args.output) as file:
            file.write("{\n")
            file.writelines(f"{label!r}: {i},\n" for i, label in enumerate(labels))
            file.write("}\n")


@tool
def words_main(argv: Sequence[str]) -> None:
    """Runs `collect-words.py`."""
    _run("collect-words.py", "words", str.split, argv)


@tool
def symbols_main(argv: Sequence[str]) -> None:
    """Runs `collect-orth-symbols.py`."""
    _run("collect-orth-symbols.py", "characters", list, argv)
