"""Blobs fetched from elsewhere, in a folder that all runners of a host share: verified when read, least used first out.

What is on its way is one file a blob, which only the holder of its lock writes; a killed download goes on where it was.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from datarun.blobs import verified
from datarun.errors import BlobCorrupt, Retryable
from datarun.events import Blob

BLOCK_BYTES = 4096
"""The least that a file takes of a disk."""
ROOM = 8
"""One part in so many is made free at once and may fill up again before anybody looks."""
WAIT_SECONDS = 20.0
"""How long another process may get nothing of a blob before this one fetches it for itself."""
STALE_SECONDS = 24 * 3600.0
LOOK_SECONDS = 0.05
_PARTIAL = ".partial"


class BlobBusy(Retryable):
    """Another process has been fetching the blob for long."""


class BlobCache:
    """A folder of at most about so many bytes; safe for threads and processes alike. Every method raises OSError."""

    def __init__(self, folder: Path, *, capacity_bytes: int) -> None:
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        # The first one to keep something looks how full the folder is.
        self._kept_bytes = capacity_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held-out labels are among the bytes.
        folder.chmod(0o700)

    def get(self, blob: Blob) -> bytes | None:
        """Return a blob's bytes, None when they are not here; what has decayed is deleted."""
        path = self._path(blob)
        try:
            content = verified(path.read_bytes(), blob)
            os.utime(path)
        except FileNotFoundError:
            return None
        except BlobCorrupt:
            path.unlink(missing_ok=True)
            return None
        return content

    @contextmanager
    def fetching(self, blob: Blob) -> Iterator[IO[bytes]]:
        """Hold the file of a blob on its way, with what came before at its end; nobody else writes it meanwhile.

        Raises BlobBusy when somebody else does for long.
        """
        path = self._path(blob).with_suffix(_PARTIAL)
        path.parent.mkdir(exist_ok=True)
        file = _locked(path) or _awaited(path)
        if file is None:
            raise BlobBusy(f"blob {blob.sha256} is being fetched by another process")
        with file:
            yield file

    def keep(self, blob: Blob) -> None:
        """Make a blob that has come, whole and verified, visible; call it while `fetching`."""
        path = self._path(blob)
        partial = path.with_suffix(_PARTIAL)
        if blob.size > self._capacity_bytes // 2:
            partial.unlink(missing_ok=True)
            return
        partial.replace(path)
        self._kept_bytes += max(blob.size, BLOCK_BYTES)
        if self._kept_bytes > self._capacity_bytes // ROOM:
            self._make_room()
            self._kept_bytes = 0

    def forget(self, blob: Blob) -> None:
        """Delete what came of a blob; call it while `fetching`."""
        self._path(blob).with_suffix(_PARTIAL).unlink(missing_ok=True)

    def _path(self, blob: Blob) -> Path:
        return self._folder / blob.sha256[:2] / blob.sha256

    def _make_room(self) -> None:
        """Delete what was used longest ago until there is room, and downloads that nobody went on with."""
        limit = self._capacity_bytes - self._capacity_bytes // ROOM
        stale = time.time() - STALE_SECONDS
        held = sorted(self._held())
        total = sum(size for _, size, _ in held)
        for used_at, size, path in held:
            is_partial = path.suffix == _PARTIAL
            if (is_partial and used_at < stale) or (not is_partial and total > limit):
                path.unlink(missing_ok=True)
                total -= size

    def _held(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process makes room too
                status = path.stat()
                yield status.st_mtime, max(status.st_size, BLOCK_BYTES), path


def _awaited(path: Path) -> IO[bytes] | None:
    """Return the file once nobody else holds it, None when nothing is added to it for long meanwhile."""
    size, since = -1, time.monotonic()
    while (file := _locked(path)) is None and time.monotonic() - since < WAIT_SECONDS:
        time.sleep(LOOK_SECONDS)
        with suppress(FileNotFoundError):
            if (found := path.stat().st_size) != size:
                size, since = found, time.monotonic()
    return file


def _locked(path: Path) -> IO[bytes] | None:
    """Return the file opened and locked, None when another holds it or has just finished with it."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before may have moved it to its place, or deleted it.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None
