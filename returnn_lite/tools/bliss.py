"""What is in a Bliss corpus: names of segments, their lengths, their texts."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from returnn_lite.datasets.audio.bliss_corpus import Segment, is_bliss, segments
from returnn_lite.datasets.order.seq_list import read_seq_list
from returnn_lite.errors import ConfigError
from returnn_lite.reading import read_bytes
from returnn_lite.tools.common import output_file, tool


def read_corpus(path: str, subset: str | None = None) -> list[Segment]:
    """The segments of a corpus (plain or `.gz`), or those whose tags are in the file `subset`.

    Raises ConfigError if there are none, or two of the same name.
    """
    content = read_bytes(path, "bliss")
    if not is_bliss(content):
        raise ConfigError(path, "must be a Bliss corpus, XML with the root element `corpus`")
    wanted = None if subset is None else frozenset(read_seq_list(subset, "--subset_segment_file"))
    found = [segment for segment in segments(content, path) if wanted is None or segment.tag in wanted]
    if not found:
        raise ConfigError(path, "no segments" + (f" of {subset}" if subset else ""))
    seen: set[str] = set()
    for segment in found:
        if segment.tag in seen:
            raise ConfigError(path, f'two segments are called "{segment.tag}"')
        seen.add(segment.tag)
    return found


def duration(segment: Segment, path: str) -> float:
    """Seconds. Raises ConfigError where the corpus does not say when the segment ends."""
    if math.isinf(segment.end):
        raise ConfigError(path, f'the segment "{segment.tag}" must say where it ends')
    return segment.end - segment.start


def merged(corpus: Iterable[Segment], seconds: float, path: str) -> Iterator[str]:
    """Names of consecutive segments of a recording as "tag;tag;…", as long as they are no longer than so many seconds.

    For the `seq_list_file` of ConcatSeqsDataset.
    """
    for _, of_recording in groupby(corpus, key=lambda segment: (segment.tag.rpartition("/")[0], segment.audio)):
        tags: list[str] = []
        total = 0.0
        for segment in of_recording:
            if tags and total + duration(segment, path) > seconds:
                yield ";".join(tags)
                tags, total = [], 0.0
            tags.append(segment.tag)
            total += duration(segment, path)
        yield ";".join(tags)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("bliss", help="the corpus, XML or .xml.gz")
    parser.add_argument("--subset_segment_file", help="only the segments that this file names, one a line")
    parser.add_argument("--output", help="the file to write (standard output)")
    return parser


def _write(lines: Iterable[str], output: str | None) -> None:
    if output is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    with output_file(output) as file:
        file.writelines(f"{line}\n" for line in lines)


@tool
def segment_names_main(argv: Sequence[str]) -> None:
    """Runs `bliss-get-segment-names.py`."""
    parser = _parser("bliss-get-segment-names.py", "The names of a Bliss corpus's segments, one a line.")
    parser.add_argument(
        "--merge_segs_up_to_time", type=float, metavar="SECONDS",
        help='joins consecutive segments of a recording as "tag;tag", for ConcatSeqsDataset',
    )  # fmt: skip
    args = parser.parse_args(argv)
    corpus, limit = read_corpus(args.bliss, args.subset_segment_file), args.merge_segs_up_to_time
    _write((s.tag for s in corpus) if limit is None else merged(corpus, limit, args.bliss), args.output)


@tool
def seq_lens_main(argv: Sequence[str]) -> None:
    """Runs `bliss-collect-seq-lens.py`."""
    parser = _parser("bliss-collect-seq-lens.py", "A Python dict {segment: frames}, as seq_len_file takes it.")
    parser.add_argument("--frame_time", type=float, default=0.01, help="seconds of a frame (0.01)")
    args = parser.parse_args(argv)
    corpus = read_corpus(args.bliss, args.subset_segment_file)
    lines = (f"{s.tag!r}: {round(duration(s, args.bliss) / args.frame_time)}," for s in corpus)
    _write(["{", *lines, "}"], args.output)


@tool
def text_main(argv: Sequence[str]) -> None:
    """Runs `bliss-dump-text.py`."""
    args = _parser("bliss-dump-text.py", "The texts of a Bliss corpus, a segment a line.").parse_args(argv)
    _write((segment.text for segment in read_corpus(args.bliss, args.subset_segment_file)), args.output)
