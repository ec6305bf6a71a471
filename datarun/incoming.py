"""A blob on its way in: bytes written to a file aside and hashed as they come, kept or left without a trace."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STALE_SECONDS = 24 * 3600.0
"""Nothing is on its way for this long; what is, was left by a process that was killed."""
_PREFIX = "in-"


class Incoming:
    """Bytes of a length and a sha256 that are known at their end; closing it forgets what was not kept."""

    def __init__(self, folder: Path) -> None:
        """Open a file in a folder; raises OSError."""
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX)
        self.path = Path(name)
        self.size = 0
        # Buffered, so that a close waits for a write of another thread.
        self._file = os.fdopen(descriptor, "wb")
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The sha256 of what was written until now."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes | bytearray) -> None:
        """Take more bytes; raises OSError."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def rest(self) -> None:
        """Let go of the descriptor; nothing more can be written. Raises OSError."""
        self._file.close()

    def sync(self) -> None:
        """Make what was written durable; raises OSError."""
        if self._file.closed:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            return
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Delete the file, unless it was moved to where it is kept."""
        with suppress(OSError):  # a full disk refuses what is still in the buffer, which nobody wants any more
            self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep(folder: Path) -> None:
    """Delete what killed processes left in the folder."""
    oldest = time.time() - STALE_SECONDS
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if path.stat().st_mtime < oldest:
                path.unlink()
