"""Files that are whole or not there, and what is left of those that were not finished."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from returnn_lite.files import own_temporary, remove_abandoned, write_atomically

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folder_appear(tmp_path):
    write_atomically(str(tmp_path / "new" / "a"), lambda file: file.write(b"abc"))
    assert (tmp_path / "new" / "a").read_bytes() == b"abc" and names(tmp_path / "new") == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), FULL])
def test_after_an_error_all_is_as_before(tmp_path, error):
    (tmp_path / "a").write_bytes(b"before")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(str(tmp_path / "a"), write)
    assert (tmp_path / "a").read_bytes() == b"before" and names(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("write", [
    lambda file: file.write(b"x" * 100_000),
    lambda file: torch.save({"x": torch.zeros(100_000)}, file),
])  # fmt: skip
def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch, write):
    """torch.save has an error of its own for that, which says neither."""
    os.symlink("/dev/full", tmp_path / "a.tmp")
    with pytest.raises(OSError, match="No space left on device: .*/a'") as raised:
        write_atomically(str(tmp_path / "a"), write)
    assert raised.value.errno == errno.ENOSPC and names(tmp_path) == []


def test_files_of_ended_processes_go(tmp_path):
    """Of this path, this host and this kind alone; a running process keeps its own."""
    path = str(tmp_path / "out.hdf")
    code = "import sys; from returnn_lite.files import own_temporary as t; print(t(sys.argv[1], '.writing'))"
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    stale = ended.stdout.strip()
    kept = [
        own_temporary(path, ".writing").replace(f".{os.getpid()}.", f".{os.getppid()}."),
        own_temporary(path + "2", ".writing"),
        stale.replace(".writing", ".other"),
        str(tmp_path / ".out.hdf.elsewhere.999999.writing"),
        str(tmp_path / ".out.hdf.writing"),
    ]
    for name in (stale, *kept):
        Path(name).touch()
    remove_abandoned(path, ".writing")
    assert names(tmp_path) == sorted(os.path.basename(name) for name in kept)
