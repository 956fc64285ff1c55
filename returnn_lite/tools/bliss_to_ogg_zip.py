"""Cuts the audio of a Bliss corpus by segments into a zip file for OggZipDataset: `bliss-to-ogg-zip.py CORPUS …`."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from returnn_lite.datasets.audio.bliss_corpus import Segment
from returnn_lite.datasets.audio.file import read_audio
from returnn_lite.datasets.zip_files import unsafe
from returnn_lite.errors import ConfigError
from returnn_lite.files import TEMPORARY, own_temporary, remove_abandoned, remove_if_there
from returnn_lite.tools.bliss import duration, read_corpus
from returnn_lite.tools.common import Progress, tool

AUDIO = ".audio"

Convert = Callable[[Segment], str]  # a segment -> the file with its audio


def write_zip(output: str, corpus: Sequence[Segment], path: str, convert: Convert | None) -> None:
    """Writes the zip file: `<name>.txt`, and with `convert` the audio files `<name>/<tag>.ogg`.

    Nothing appears under the name `output` before all is written.
    """
    remove_abandoned(output, TEMPORARY)
    name, temporary = os.path.basename(output).removesuffix(".zip"), own_temporary(output, TEMPORARY)
    progress, entries = Progress("segments"), []
    try:
        archive = zipfile.ZipFile(temporary, "w", strict_timestamps=False)  # files of any age
        with archive, _in_parallel(convert, corpus) as files:
            for segment, file in zip(corpus, files, strict=True):
                if file is not None:
                    archive.write(file, f"{name}/{segment.tag}.ogg")  # compressed as it is
                entries.append(_entry(segment, file, path))
                progress.step(len(entries) / len(corpus))
            text = "[\n" + "".join(f"{entry!r},\n" for entry in entries) + "]\n"
            archive.writestr(f"{name}.txt", text, zipfile.ZIP_DEFLATED)
        os.replace(temporary, output)
    except OSError as exc:
        if exc.errno and exc.filename in (None, temporary):
            raise ConfigError(output, f"cannot be written: {exc.strerror}") from None
        raise
    finally:
        progress.end()
        remove_if_there(temporary)


def _entry(segment: Segment, file: str | None, path: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"text": segment.text, "speaker_name": segment.speaker}
    if file is not None:
        entry["file"] = f"{segment.tag}.ogg"
    entry["seq_name"] = segment.tag
    if file is not None and math.isinf(segment.end):
        with open(file, "rb") as audio:
            samples, rate = read_audio(audio.read(), file)
        return {**entry, "duration": len(samples) / rate}
    return {**entry, "duration": float(duration(segment, path))}


@contextmanager
def _in_parallel(convert: Convert | None, corpus: Sequence[Segment]) -> Iterator[Iterator[str | None]]:
    """The converted files in order, made by as many processes as there are CPUs; None for each without `convert`."""
    if convert is None:
        yield iter([None] * len(corpus))
        return
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool.map(convert, corpus)
    finally:
        pool.shutdown(cancel_futures=True)


def check_segments(corpus: Sequence[Segment], path: str, *, as_they_are: bool) -> None:
    """Raises ConfigError for names that no zip file should have and, for files taken as they are, for parts of them."""
    for segment in corpus:
        if unsafe(segment.tag):
            raise ConfigError(path, f'the segment has the unsafe name "{segment.tag}"')
        if as_they_are and (segment.start != 0 or not segment.audio.endswith(".ogg")):
            raise ConfigError(
                path,
                f'without conversion, audio must be *.ogg and segments begin at 0, but "{segment.tag}" begins at'
                f" {segment.start} s of {segment.audio}",
            )


class Audio:
    """Finds a segment's audio, and cuts it with ffmpeg into the folder `target`."""

    def __init__(self, corpus_path: str, target: str, ffmpeg: Sequence[str]):
        self.corpus_path, self.target, self.ffmpeg = corpus_path, target, list(ffmpeg)

    def source(self, segment: Segment) -> str:
        """The audio file of the recording; relative paths are from the corpus's folder."""
        path = os.path.join(os.path.dirname(self.corpus_path), segment.audio)
        if not segment.audio or not os.path.isfile(path):
            raise ConfigError(self.corpus_path, f'segment "{segment.tag}": audio file does not exist: "{path}"')
        return path

    def cut(self, segment: Segment) -> str:
        """The segment in a file of its own. Raises ConfigError with what ffmpeg says if that fails."""
        source, target = self.source(segment), os.path.join(self.target, f"{segment.tag}.ogg")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        length = [] if math.isinf(segment.end) else ["-t", f"{segment.end - segment.start:.6f}"]
        program, *options = self.ffmpeg
        command = [program, "-ss", f"{segment.start:.6f}", "-i", source, *length, *options, target]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode or not os.path.isfile(target):
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ConfigError(source, f'segment "{segment.tag}" cannot be converted: {said}')
        return target


def ffmpeg_command(args: argparse.Namespace) -> list[str]:
    """The program with its options. Raises ConfigError if it is not installed."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ConfigError(
            "", "the conversion needs ffmpeg, which is not installed; --no_conversion takes *.ogg as they are"
        )
    options = ["-hide_banner", "-loglevel", args.ffmpeg_loglevel, "-y"]
    chosen = {"-acodec": args.ffmpeg_acodec, "-ar": args.ffmpeg_resample, "-ac": args.number_of_channels}
    return [program, *options, *(str(part) for pair in chosen.items() if pair[1] for part in pair)]


@contextmanager
def _folder(beside: str, keep: bool) -> Iterator[str]:
    """A new folder beside a file, removed at the end."""
    remove_abandoned(beside, AUDIO)
    folder = own_temporary(beside, AUDIO)
    os.mkdir(folder)
    try:
        yield folder
    finally:
        if keep:
            print(f"the audio files are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _checked(args: argparse.Namespace) -> None:
    if args.sprint_cache:
        raise ConfigError("--sprint_cache", "archives of RASR cannot be read; name audio files in the corpus")
    if not args.output.endswith(".zip"):
        raise ConfigError("--output", f"must end in .zip, but is {args.output!r} instead")
    if os.path.exists(args.output):
        raise ConfigError(args.output, "this file exists already")


@tool
def main(argv: Sequence[str]) -> None:
    """Runs the tool."""
    args = _parser().parse_args(argv)
    _checked(args)
    corpus = read_corpus(args.bliss, args.subset_segment_file)
    check_segments(corpus, args.bliss, as_they_are=args.no_conversion and not args.no_ogg)
    if args.no_ogg:
        write_zip(args.output, corpus, args.bliss, None)
    elif args.no_conversion:
        write_zip(args.output, corpus, args.bliss, Audio(args.bliss, "", []).source)
    else:
        command = ffmpeg_command(args)
        with _folder(args.output, keep=args.no_cleanup) as folder:
            write_zip(args.output, corpus, args.bliss, Audio(args.bliss, folder, command).cut)
    print(f"{args.output}: {len(corpus)} segments")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bliss-to-ogg-zip.py",
        description="Cuts the audio of a Bliss corpus by segments with ffmpeg, into a zip file for OggZipDataset.",
    )
    add = parser.add_argument
    add("bliss", help="the corpus, XML or .xml.gz; its audio paths are relative to its folder")
    add("--output", required=True, help="the zip file to write")
    add("--subset_segment_file", help="only the segments that this file names, one a line")
    add("--no_ogg", action="store_true", help="texts only, no audio")
    add("--no_conversion", action="store_true", help="takes the files *.ogg as they are; segments begin at 0")
    add("--no_cleanup", action="store_true", help="keeps the cut files")
    add("--sprint_cache", help="not supported")
    add("--raw_sample_rate", type=int, default=8000, help="without effect: only for --sprint_cache")
    add("--feat_sample_rate", type=int, default=100, help="without effect: only for --sprint_cache")
    add("--ffmpeg_loglevel", default="error", help="what ffmpeg reports (error)")
    add("--ffmpeg_acodec", help="the audio codec (ffmpeg's default for *.ogg)")
    add("--ffmpeg_resample", type=int, metavar="HZ", help="the new sample rate (unchanged)")
    add("--number_of_channels", type=int, default=0, help="1 for mono, 2 for stereo (unchanged)")
    return parser
