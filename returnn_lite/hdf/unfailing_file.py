"""A file whose errors do not reach the HDF5 library, which does not survive them."""

from __future__ import annotations

import io
import os


class UnfailingFile(io.RawIOBase):
    """A file for reading and writing that keeps its first error in `error`; from then on nothing is written any more.

    After a failed write HDF5 cannot close its file: it crashes as the process ends. So it must believe that all goes
    well; who uses the file looks at `error`.
    """

    def __init__(self, path: str, *, new: bool) -> None:
        self.file = open(path, "w+b" if new else "r+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:  # type: ignore[override]
        """Writes all of it, or keeps the error."""
        left = memoryview(content).cast("B")
        size = left.nbytes
        try:
            while left.nbytes and self.error is None:
                left = left[self.file.write(left) :]
        except OSError as exc:
            self.error = exc
        return size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills the buffer; with zeros where there is nothing, or it cannot be read."""
        place = memoryview(buffer).cast("B")
        done = 0
        try:
            while done < place.nbytes and (count := self.file.readinto(place[done:])):
                done += count
        except OSError as exc:
            self.error = self.error or exc
        place[done:] = bytes(place.nbytes - done)
        return place.nbytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self.file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cuts or lengthens the file."""
        try:
            if self.error is None:
                return self.file.truncate(size)
        except OSError as exc:
            self.error = exc
        return size or 0

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Makes sure that all is on the disk."""
        try:
            if self.error is None:
                os.fsync(self.file.fileno())
        except OSError as exc:
            self.error = exc

    def close(self) -> None:
        """Closes the file."""
        try:
            self.file.close()
        except OSError as exc:
            self.error = self.error or exc
