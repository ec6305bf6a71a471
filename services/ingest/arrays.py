"""Blobs in the form of the 2016 interface, base64(zlib(bytes)); floats compress slowly, so this belongs in a thread."""

from __future__ import annotations

import base64
import threading
import zlib
from collections import OrderedDict

import structlog

from datarun.blobs import BlobStore
from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob

CACHED_BYTES = 32 * 1024 * 1024
LARGEST_CACHED_BYTES = 256 * 1024

log = structlog.get_logger(__name__)


class Arrays:
    """Encoded blobs, the small ones remembered; many folds share their indices."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, str] = OrderedDict()
        self._cached_bytes = 0

    def encoded(self, name: str | None) -> str | None:
        """Return a blob named by `sha256:size`, encoded; None for none. Raises BlobMissing or BlobCorrupt."""
        if name is None:
            return None
        with self._lock:
            if name in self._cached:
                self._cached.move_to_end(name)
                return self._cached[name]
        sha256, _, size = name.partition(":")
        content = self._blobs.get(Blob(sha256=sha256, size=int(size)))
        text = base64.b64encode(zlib.compress(content)).decode()
        if len(text) <= LARGEST_CACHED_BYTES:
            self._remember(name, text)
        return text

    def if_readable(self, name: str | None) -> str | None:
        """Return the same, or None for a blob that the store cannot give; it is logged."""
        try:
            return self.encoded(name)
        except (BlobMissing, BlobCorrupt) as error:
            log.error("blob.unreadable", blob=name, reason=str(error))  # noqa: TRY400 - said in full
            return None

    def _remember(self, name: str, text: str) -> None:
        with self._lock:
            if name in self._cached:
                return
            self._cached[name] = text
            self._cached_bytes += len(text)
            while self._cached_bytes > CACHED_BYTES:
                _, oldest = self._cached.popitem(last=False)
                self._cached_bytes -= len(oldest)


def blob_size(name: str | None) -> int:
    """Return the bytes of a blob named by `sha256:size`."""
    return int(name.partition(":")[2]) if name else 0
