"""The content-addressed store: bytes under their sha256, durable before any event names them, verified when read.

A local folder by default; any URL that obstore knows (s3://, gs://, az://) otherwise.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob

OCTETS = "application/octet-stream"


class BlobStore(Protocol):
    """Put and get bytes."""

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them; storing them again costs a look."""
        ...

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing or BlobCorrupt."""
        ...


def open_blobs(url: str) -> BlobStore:
    """Open the store a URL names: file:///folder (or a plain path), or an object store."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return LocalBlobs(Path(parts.path))
    return ObjectBlobs(url)


def verified(content: bytes, blob: Blob) -> bytes:
    """Return the content if it is the blob's; raises BlobCorrupt."""
    if hashlib.sha256(content).hexdigest() != blob.sha256:
        message = f"blob {blob.sha256} has other bytes in the store"
        raise BlobCorrupt(message)
    return content


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


class LocalBlobs:
    """Blobs as files: written aside, synced, renamed, so that a half blob is never visible."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them."""
        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        path = self.path(blob)
        if not (path.is_file() and path.stat().st_size == blob.size):
            self._write(path, content)
        return blob

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing or BlobCorrupt."""
        try:
            content = self.path(blob).read_bytes()
        except FileNotFoundError as error:
            message = f"blob {blob.sha256} is not in {self._folder}"
            raise BlobMissing(message) from error
        return verified(content, blob)

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
        from obstore.store import from_url  # noqa: PLC0415 - loaded only where an object store is used

        self._url = url
        self._store = from_url(url)

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them."""
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        try:
            self._store.put(_key(blob.sha256), bytes(content), mode="create")
        except AlreadyExistsError:
            return blob
        return blob

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing or BlobCorrupt."""
        try:
            content = bytes(self._store.get(_key(blob.sha256)).bytes())
        except FileNotFoundError as error:
            message = f"blob {blob.sha256} is not in {self._url}"
            raise BlobMissing(message) from error
        return verified(content, blob)
