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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from datarun.errors import BlobCorrupt, BlobMissing, BlobsUnavailable, DatarunError
from datarun.events import Blob
from datarun.incoming import Incoming, sweep

OCTETS = "application/octet-stream"
CHUNK_BYTES = 1 << 20
TOUCH_SECONDS = 3600.0
"""A blob that was not asked for so long is touched when it is."""
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


def open_blobs(url: str) -> StreamedBlobs:
    """Open the store a URL names: file:///folder (or a plain path), or an object store."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return LocalBlobs(Path(parts.path))
    return ObjectBlobs(url)


def open_folder(url: str) -> LocalBlobs:
    """Open the store a URL names if it is a folder of this machine; raises DatarunError for another one."""
    store = open_blobs(url)
    if not isinstance(store, LocalBlobs):
        raise DatarunError(f"{url} is not a folder: blobs of an object store cannot be collected")
    return store


def verified(content: bytes, blob: Blob) -> bytes:
    """Return the content if it is the blob's; raises BlobCorrupt."""
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        message = f"blob {blob.sha256} has other bytes in the store"
        raise BlobCorrupt(message)
    return content


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


class KeptBlob(NamedTuple):
    """A blob of a folder, and when it was put or asked for the last time (seconds since 1970)."""

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
        path = self._folder / _key(sha256)
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
        path = self._folder / _key(sha256)
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - untouched_seconds:
                path.unlink()
                return True
        return False

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to before stop; raises BlobMissing."""
        try:
            file = (self._folder / _key(sha256)).open("rb")
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
        path = self._folder / _key(incoming.sha256)
        is_known = self.size(incoming.sha256) == incoming.size
        incoming.sync()
        _make_folder(path.parent)
        # Also over a known one: these bytes are verified, those in its place may have decayed.
        incoming.path.replace(path)
        _sync_folder(path.parent)
        return not is_known

    def path(self, blob: Blob) -> Path:
        """Return where a blob's file is."""
        return self._folder / _key(blob.sha256)

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


class ObjectBlobs:
    """Blobs in an object store; a put is durable when the store has answered."""

    def __init__(self, url: str) -> None:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - loaded only where an object store is used
        from obstore.store import from_url  # noqa: PLC0415

        self._url = url
        try:
            self._store = from_url(url)
        except (BaseError, ValueError) as error:
            raise DatarunError(f"{url} is not the URL of a blob store: {error}") from error

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them; raises BlobsUnavailable."""
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        with self._answering(), suppress(AlreadyExistsError):
            self._store.put(_key(blob.sha256), bytes(content), mode="create")
        return blob

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing, BlobCorrupt or BlobsUnavailable."""
        with self._answering():
            content = bytes(self._store.get(_key(blob.sha256)).bytes())
        return verified(content, blob)

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, None for one that is not there; raises BlobsUnavailable."""
        try:
            with self._answering():
                return self._store.head(_key(sha256))["size"]
        except BlobMissing:
            return None

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to before stop; raises BlobMissing or BlobsUnavailable."""
        if start >= stop:
            return
        with self._answering():
            found = self._store.get(_key(sha256), options={"range": (start, stop)})
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def receive(self) -> Incoming:
        """Open a place for bytes on their way in, on this machine; raises OSError."""
        return Incoming(Path(tempfile.gettempdir()))

    def keep(self, incoming: Incoming) -> bool:
        """Store what has come durably under its sha256; False when that was known. Raises BlobsUnavailable."""
        if self.size(incoming.sha256) == incoming.size:
            return False
        incoming.sync()
        with self._answering():
            # Piece by piece where it is large; it replaces at most its equal.
            self._store.put(_key(incoming.sha256), incoming.path)
        return True

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            yield
        except FileNotFoundError as error:
            raise BlobMissing(f"a blob is not in {self._url}: {error}") from error
        except BaseError as error:
            raise BlobsUnavailable(f"the store at {self._url} does not answer: {error}") from error
