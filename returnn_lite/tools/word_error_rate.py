"""The word error rate of texts against references: `calculate-word-error-rate.py --hyps FILE --refs FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.datasets.batches.iterate import each_seq
from returnn_lite.datasets.text.text_dict import read_texts
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import Progress, dataset_of_options, follow, output_file, stderr_log, text_of_seq, tool

Distance = Callable[[list[str], list[str]], int]


@dataclass
class Errors:
    """Words that must be substituted, inserted and deleted, of all words of the references."""

    errors: int = 0
    words: int = 0
    wrong_seqs: int = 0
    seqs: int = 0

    @property
    def rate(self) -> float:
        """In percent; with references without words 0 if all is right, else infinite."""
        if not self.words:
            return float("inf") if self.errors else 0.0
        return 100 * self.errors / self.words


def count_errors(hyps: Mapping[str, str], refs: Mapping[str, str], distance: Distance) -> Errors:
    """Over all sequences of `hyps`; words are what stands between white space."""
    found, progress = Errors(), Progress("sequences")
    for tag, hyp in hyps.items():
        ref = refs[tag].split()
        errors = distance(hyp.split(), ref)
        found.errors += errors
        found.wrong_seqs += errors > 0
        found.words += len(ref)
        found.seqs += 1
        progress.step(found.seqs / len(hyps))
    progress.end()
    return found


def check_tags(hyps: Mapping[str, str], refs: Mapping[str, str], expect_full: bool) -> None:
    """Raises ConfigError for a hypothesis without reference and, if all are expected, for a reference without one."""
    unknown = [tag for tag in hyps if tag not in refs]
    if unknown:
        raise ConfigError("--refs", f'no reference for {len(unknown)} of {len(hyps)} sequences, such as "{unknown[0]}"')
    missing = [tag for tag in refs if tag not in hyps] if expect_full else []
    if missing:
        raise ConfigError(
            "--hyps", f'no hypothesis for {len(missing)} of {len(refs)} references, such as "{missing[0]}"'
        )


def read_best(filename: str, option: str) -> dict[str, str]:
    """{tag: text} of a file (plain or `.gz`) with a Python dict of texts or of lists [(score, text), …]: the first."""
    texts = read_texts(filename, option)
    return {str(tag): _best(value, f'{option}: {filename}["{tag}"]') for tag, value in texts.items()}


def _best(value: object, path: str) -> str:
    if isinstance(value, list) and not value:
        return ""
    entry = value[0] if isinstance(value, list) else value
    found = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
    if not isinstance(found, str):
        raise ConfigError(path, f"must be a text or a list [(score, text), …], but is {str(value)[:100]} instead")
    return found


def word_distance() -> Distance:
    """Levenshtein's distance of lists."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise ConfigError("", 'error rates need rapidfuzz: pip install "returnn-lite[wer]"') from None
    distance: Distance = Levenshtein.distance
    return distance


def _references(args: argparse.Namespace) -> dict[str, str]:
    if args.refs is not None:
        return read_best(args.refs, "--refs")
    dataset = dataset_of_options(args.config, args.dataset, stderr_log(args.verbosity))
    dataset.init_seq_order(1)
    return {dataset.get_tag(i): text_of_seq(dataset, i, args.key) for i in follow(dataset, each_seq(dataset))}


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    parser = argparse.ArgumentParser(
        prog="calculate-word-error-rate.py",
        description="The word error rate of --hyps against --refs, or against the texts of a dataset.",
    )
    add = parser.add_argument
    add("--hyps", required=True, help="file (or .gz) with a Python dict {tag: text}, or {tag: [(score, text), …]}")
    add("--refs", help="file with a Python dict {tag: text}")
    add("--dataset", help="the references instead: a dataset dict as text, or the name of one in --config")
    add("--config", help="a config file with datasets")
    add("--key", default="raw", help="the dataset's key of texts (raw)")
    add("--expect_full", action="store_true", help="fails if a reference has no hypothesis")
    add("--out", metavar="FILE", help="the rate in percent is written here, with two decimals")
    add("--verbosity", type=int, default=2, help="of messages about the dataset, 1 to 5 (2)")
    args = parser.parse_args(argv)
    distance = word_distance()
    hyps, refs = read_best(args.hyps, "--hyps"), _references(args)
    check_tags(hyps, refs, args.expect_full)
    found = count_errors(hyps, refs, distance)
    print(
        f"WER {found.rate:.2f} %: {found.errors} errors in {found.words} words,"
        f" {found.wrong_seqs} of {found.seqs} sequences wrong"
    )
    if args.out:
        with output_file(args.out) as file:
            file.write(f"{found.rate:.2f}\n")
