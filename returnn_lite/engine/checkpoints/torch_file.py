"""Reading files of torch.save, with their checksums verified: torch itself does not look at them."""

import contextlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeAlias

import torch

from returnn_lite.errors import ConfigError

THREADS = 4
CHUNK = 1 << 20
SHOWN = 5  # names in an error
# Tensors and plain values, nested in any way: what it must be is checked by who asks for it.
Content: TypeAlias = Any


def read_torch_file(path: str, option: str = "load") -> Content:
    """The content, on the CPU. ConfigError (path: `option`) where it is damaged, or more than data."""
    try:
        return _checked(path, option)
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(option, f"file {path!r} does not exist") from None
    except pickle.UnpicklingError as exc:
        found = re.search(r"GLOBAL (\S+)", str(exc))
        what = f"objects of {found[1]}" if found else "other objects"
        raise ConfigError(option, f"{path!r} must be a checkpoint of named tensors, but holds {what}") from exc
    except Exception as exc:  # torch raises many kinds for damaged and foreign files
        raise ConfigError(option, f"{path!r} cannot be read as a checkpoint: {_why(path, exc)}") from exc


def _checked(path: str, option: str) -> Content:
    """Reads the file, and at the same time verifies its checksums, which come first where both fail."""
    content, failed = None, None
    with ThreadPoolExecutor(1) as pool:
        damaged = pool.submit(damaged_records, path)
        try:
            content = _load(path)
        except Exception as exc:
            failed = exc
    if records := damaged.result():
        names = [record_name(content, record) for record in records[:SHOWN]] + ["…"] * (len(records) > SHOWN)
        raise ConfigError(option, f"{path!r} is damaged: the checksum of {', '.join(names)} does not fit")
    if failed is not None:
        raise failed
    return content


def _load(path: str, *, mmap: bool | None = None) -> Content:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files that other programs wrote
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_entries(path: str, option: str = "load") -> Content:
    """As `read_torch_file`, but arrays are read from the disk only when they are used, and without checksums."""
    try:
        return _load(path, mmap=True)
    except Exception:  # not a zip file, or broken
        return read_torch_file(path, option)


def write_torch_file(content: object, file: BinaryIO) -> None:
    """As torch.save, with checksums whatever torch's own setting is."""
    options = getattr(torch.serialization, "set_crc32_options", None)  # not in old ones, which always write them
    before = torch.serialization.get_crc32_options() if options else True
    if options is not None and not before:
        options(True)
    try:
        torch.save(content, file)
    finally:
        if options is not None and not before:
            options(False)


def damaged_records(path: str) -> list[str]:
    """The names of the parts of the zip file whose checksum does not fit.

    None of a file in torch's old form without checksums, or written with them turned off (then all are 0).
    """
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if not any(record.CRC for record in records):
        return []
    count = min(THREADS, os.cpu_count() or 1)

    def damaged(first: int) -> list[int]:
        # A handle for each thread: from Python 3.12 on, threads that share one get each other's bytes at times.
        with zipfile.ZipFile(path) as archive:
            return [i for i in range(first, len(records), count) if _is_damaged(archive, records[i])]

    with ThreadPoolExecutor(count) as pool:
        return [records[i].filename for i in sorted(i for part in pool.map(damaged, range(count)) for i in part)]


def _is_damaged(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as file:
            while file.read(CHUNK):
                pass
    except zipfile.BadZipFile:
        return True
    return False


def record_name(content: object, record: str) -> str:
    """What a part of the file holds: `m.003/data/7` -> `"enc.weight"`; torch numbers arrays as it comes upon them."""
    folder, _, number = record.rpartition("/data/")
    if not folder or not number.isdigit():
        return f"its part {record.rpartition('/')[2]!r}"
    storages: dict[int, str] = {}
    for name, tensor in _tensors(content, ""):
        storages.setdefault(tensor.untyped_storage()._cdata, name)
    names = list(storages.values())
    return f'"{names[int(number)]}"' if int(number) < len(names) else f"its part {record!r}"


def _tensors(value: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors within dicts and lists, in their order; names are those of the innermost dict."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, name)


def _why(path: str, exc: Exception) -> str:
    if os.path.isdir(path):
        return "it is a folder"
    if os.path.getsize(path) == 0:
        return "it is empty"
    with contextlib.suppress(zipfile.BadZipFile):
        if zipfile.is_zipfile(path):
            return (str(exc).strip() or type(exc).__name__).split(". ")[0].split("\n")[0]
    return "it is cut off, or not written by torch.save"
