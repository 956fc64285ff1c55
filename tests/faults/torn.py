"""Files that a crash of the machine, or somebody, left as no run leaves them; and what a user then does."""

import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Change = Callable[[Path], object]


def newest(folder: Path) -> str:
    """The start of the names of the last epoch's files."""
    return sorted(path.name for path in folder.glob("model.*.pt"))[-1].split(".pt")[0].removesuffix(".opt")


def without_newest(folder: Path) -> None:
    """Removes the last epoch's files."""
    for path in list(folder.glob(f"{newest(folder)}.*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(suffix: str, share: float) -> Change:
    """The newest file of the kind keeps a share of its bytes."""

    def tear(folder: Path) -> None:
        path = folder / (newest(folder) + suffix)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return tear


def folder_instead(suffix: str) -> Change:
    """The newest file of the kind is a folder."""

    def tear(folder: Path) -> None:
        path = folder / (newest(folder) + suffix)
        path.unlink()
        path.mkdir()

    return tear


def leftovers(folder: Path) -> None:
    """Temporary files of a killed run."""
    rates = ["rates.new_tmp"] if (folder / "rates").exists() else []
    for name in ("model.002.pt.tmp", "model.003.opt.pt.tmp", *rates):
        (folder / name).write_bytes(b"half")


def flipped(folder: Path) -> None:
    """A byte of the newest model's largest array is another one."""
    path = folder / f"{newest(folder)}.pt"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    name_size, extra_size = struct.unpack("<HH", content[largest.header_offset + 26 : largest.header_offset + 30])
    content[largest.header_offset + 30 + name_size + extra_size + largest.file_size // 2] ^= 255
    path.write_bytes(content)


@dataclass
class Torn:
    """`tear` makes it so; the next run ends with a line about `names`, and well after `mend`. No names: it goes on."""

    tear: Change
    names: str = ""
    mend: Change = without_newest


TORN = {
    "leftover temporary files": Torn(leftovers),
    "the newest model is cut off": Torn(cut(".pt", 0.5), ".pt"),
    "the newest model is empty": Torn(cut(".pt", 0), ".pt"),
    "the newest model is a folder": Torn(folder_instead(".pt"), ".pt"),
    "the newest model is damaged": Torn(flipped, ".pt"),
    "the newest state is cut off": Torn(cut(".opt.pt", 0.9), ".opt.pt"),
    "the newest state is empty": Torn(cut(".opt.pt", 0), ".opt.pt"),
    "the newest state is a folder": Torn(folder_instead(".opt.pt"), ".opt.pt"),
}
