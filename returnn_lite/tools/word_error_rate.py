"""Error rates of texts against references: `calculate-word-error-rate.py --hyps FILE --refs FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from returnn_lite.datasets.batches.iterate import each_seq
from returnn_lite.datasets.text.text_dict import read_texts
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import dataset_of_options, follow, output_file, stderr_log, text_of_seq, tool
from returnn_lite.tools.text_scores import METRICS, text_scores
from returnn_lite.tools.word_errors import END_SYMBOLS, count_errors, edit_steps, joined_pieces, report, units


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


def _references(args: argparse.Namespace) -> dict[str, str]:
    if args.refs is not None:
        return read_best(args.refs, "--refs")
    dataset = dataset_of_options(args.config, args.dataset, stderr_log(args.verbosity))
    dataset.init_seq_order(1)
    return {dataset.get_tag(i): text_of_seq(dataset, i, args.key) for i in follow(dataset, each_seq(dataset))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="calculate-word-error-rate.py",
        description="The word error rate of --hyps against --refs, or against the texts of a dataset: substitutions,"
        " insertions, deletions, wrong sentences, and the words with the most errors.",
    )
    add = parser.add_argument
    add("--hyps", required=True, help="file (or .gz) with a Python dict {tag: text}, or {tag: [(score, text), …]}")
    add("--refs", help="file with a Python dict {tag: text}")
    add("--dataset", help="the references instead: a dataset dict as text, or the name of one in --config")
    add("--config", help="a config file with datasets")
    add("--key", default="raw", help="the dataset's key of texts (raw)")
    add("--expect_full", action="store_true", help="fails if a reference has no hypothesis")
    add("--metrics", nargs="+", default=["wer"], choices=["wer", "cer", *METRICS], help="cer: of characters (wer)")
    add("--join_pieces", action="store_true", help="makes words of BPE pieces (@@) and SentencePiece's")
    add("--end_symbols", nargs="*", default=END_SYMBOLS, metavar="SYMBOL", help="left out at ends (</s>, <eos>, …)")
    add("--worst", type=int, default=10, metavar="N", help="number of words with the most errors to show (10)")
    add("--out", metavar="FILE", help="the first error rate in percent is written here, with two decimals")
    add("--verbosity", type=int, default=2, help="of messages about the dataset, 1 to 5 (2)")
    return parser


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    args = _parser().parse_args(argv)
    rates = [name for name in args.metrics if name not in METRICS]
    if args.out and not rates:
        raise ConfigError("--out", "needs one of the metrics wer and cer")
    steps = edit_steps() if rates else lambda hyp, ref: ()
    hyps, refs = read_best(args.hyps, "--hyps"), _references(args)
    check_tags(hyps, refs, args.expect_full)
    if args.join_pieces:
        hyps, refs = ({tag: joined_pieces(text) for tag, text in texts.items()} for texts in (hyps, refs))
    written = ""
    for name in rates:
        options = {"ends": args.end_symbols, "characters": name == "cer"}
        first, second = ({tag: units(texts[tag], **options) for tag in hyps} for texts in (hyps, refs))
        found = count_errors(first, second, steps)
        print("\n".join(report(found, name.upper(), "characters" if name == "cer" else "words", args.worst)))
        written = written or f"{found.rate:.2f}\n"
    scores = [name for name in args.metrics if name in METRICS]
    if scores:
        plain = [[" ".join(units(texts[tag], ends=args.end_symbols)) for tag in hyps] for texts in (hyps, refs)]
        print("\n".join(text_scores(scores, *plain)))
    if args.out:
        with output_file(args.out) as file:
            file.write(written)
