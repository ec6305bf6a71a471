"""The content-addressed store: bytes under their sha256, durable before any event names them, verified when read.

A local folder by default; any URL that obstore knows (s3://, gs://, az://) otherwise.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

from datarun.errors import BlobCorrupt, BlobMissing, DatarunError
from datarun.events import Blob
from datarun.incoming import Incoming, sweep

if TYPE_CHECKING:
    from datarun.object_blobs import ObjectBlobs

OCTETS = "application/octet-stream"
CHUNK_BYTES = 1 << 20
TOUCH_SECONDS = 3600.0
"""A blob that was not asked for so long is touched when it is."""
COLLECTED = ("", "file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobStore(Protocol):
    """Put and get bytes."""

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them; storing them again costs a look."""
        ...

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing or BlobCorrupt."""
        ...


class StreamedBlobs(BlobStore, Protocol):
    """Blobs that are moved piece by piece, for who hands them on; pieces are not verified, who gets them does that."""

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, None for one that is not there; raises BlobsUnavailable."""
        ...

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to before stop; raises BlobMissing or BlobsUnavailable."""
        ...

    def receive(self) -> Incoming:
        """Open a place for bytes on their way in; the caller closes it. Raises OSError."""
        ...

    def keep(self, incoming: Incoming) -> bool:
        """Store what has come durably under its sha256; False when that was known. Raises OSError."""
        ...


class CollectedBlobs(StreamedBlobs, Protocol):
    """Blobs that can be listed and deleted."""

    def kept(self) -> Iterator[KeptBlob]:
        """Yield every blob; raises BlobsUnavailable."""
        ...

    def forget(self, sha256: str, *, untouched_seconds: float) -> bool:
        """Delete a blob that nobody has put or asked for so long; False for another one.

        Raises OSError or BlobsUnavailable.
        """
        ...


def open_blobs(url: str) -> StreamedBlobs:
    """Open the store a URL names: file:///folder (or a plain path), or an object store."""
    return _open(url)


def open_collected(url: str) -> CollectedBlobs:
    """Open the store a URL names, to delete from it; raises DatarunError for one that cannot be listed."""
    scheme = urlsplit(url).scheme
    if scheme not in COLLECTED:
        raise DatarunError(f"{url}: blobs are collected of {', '.join(COLLECTED[1:])} alone, where they can be listed")
    return _open(url)


def _open(url: str) -> LocalBlobs | ObjectBlobs:
    from datarun.object_blobs import ObjectBlobs  # noqa: PLC0415 - it stands on this module

    parts = urlsplit(url)
    return LocalBlobs(Path(parts.path)) if parts.scheme in ("", "file") else ObjectBlobs(url)


def verified(content: bytes, blob: Blob) -> bytes:
    """Return the content if it is the blob's; raises BlobCorrupt."""
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        message = f"blob {blob.sha256} has other bytes in the store"
        raise BlobCorrupt(message)
    return content


def key_of(sha256: str) -> str:
    """Return where a blob is in its store."""
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


class KeptBlob(NamedTuple):
    """A blob of a store, and when it was put or asked for the last time (seconds since 1970)."""

    sha256: str
    size: int
    touched_at: float


class LocalBlobs:
    """Blobs as files: written aside, synced, renamed, so that a half blob is never visible."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them."""
        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        if self.size(blob.sha256) != blob.size:
            self._write(self.path(blob), content)
        return blob

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing or BlobCorrupt."""
        try:
            content = self.path(blob).read_bytes()
        except FileNotFoundError as error:
            message = f"blob {blob.sha256} is not in {self._folder}"
            raise BlobMissing(message) from error
        return verified(content, blob)

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, None for one that is not there.

        Who asks may be about to name it: from now on it counts as new again.
        """
        path = self._folder / key_of(sha256)
        try:
            found = path.stat()
            if found.st_mtime < time.time() - TOUCH_SECONDS:
                with suppress(PermissionError):
                    os.utime(path)
        except FileNotFoundError:
            return None
        return found.st_size

    def kept(self) -> Iterator[KeptBlob]:
        """Yield every blob of the folder."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):
                if _SHA256.fullmatch(path.name):
                    found = path.stat()
                    yield KeptBlob(path.name, found.st_size, found.st_mtime)

    def forget(self, sha256: str, *, untouched_seconds: float) -> bool:
        """Delete a blob that nobody has put or asked for so long; False for another one. Raises OSError."""
        path = self._folder / key_of(sha256)
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - untouched_seconds:
                path.unlink()
                return True
        return False

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to before stop; raises BlobMissing."""
        try:
            file = (self._folder / key_of(sha256)).open("rb")
        except FileNotFoundError as error:
            raise BlobMissing(f"blob {sha256} is not in {self._folder}") from error
        with file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK_BYTES, stop - start))):
                start += len(chunk)
                yield chunk

    def receive(self) -> Incoming:
        """Open a place for bytes on their way in, on the same file system; raises OSError."""
        folder = self._folder / "incoming"
        _make_folder(folder)
        sweep(folder)
        return Incoming(folder)

    def keep(self, incoming: Incoming) -> bool:
        """Store what has come durably under its sha256; False when that was known. Raises OSError."""
        path = self._folder / key_of(incoming.sha256)
        is_known = self.size(incoming.sha256) == incoming.size
        incoming.sync()
        _make_folder(path.parent)
        # Also over a known one: these bytes are verified, those in its place may have decayed.
        incoming.path.replace(path)
        _sync_folder(path.parent)
        return not is_known

    def path(self, blob: Blob) -> Path:
        """Return where a blob's file is."""
        return self._folder / key_of(blob.sha256)

    @staticmethod
    def _write(path: Path, content: bytes | memoryview) -> None:
        _make_folder(path.parent)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable in the one above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
